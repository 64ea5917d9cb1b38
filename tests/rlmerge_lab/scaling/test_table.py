"""Tables as text."""

import pytest

from rlmerge_lab.scaling.table import Table, percent, plus_minus


def test_csv_quotes_what_needs_it():
    table = Table("t", "title", ("a", "b"), (("1,5", "x"), ('say "hi"', "y")))
    assert table.to_csv() == 'a,b\n"1,5",x\n"say ""hi""",y\n'


def test_a_ragged_table_is_refused():
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        Table("t", "title", ("a", "b"), (("1",),))


def test_numbers_as_text():
    assert (percent(0.9412), percent(0.5, 0), plus_minus(0.5, 0.25, 2)) == ("94.1 %", "50 %", "0.50 ± 0.25")
