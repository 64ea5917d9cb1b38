import pytest

from rlmerge.report.axes import columns
from rlmerge.report.console import Column, fitted, render


def shown(found, width):
    return render([found], width, False)


PEOPLE = [
    Column("name", ["ties", "ram"], left=True),
    Column("score", ["0.512", "0.487"]),
    Column("seconds", ["1.25", "2.50"], rank=2),
    Column("note", ["first", "second"], rank=1, left=True),
]


@pytest.mark.parametrize(
    ("width", "left_out"), [(28, []), (27, ["seconds"]), (19, ["seconds"]), (18, ["seconds", "note"])]
)
def test_columns_go_by_rank_until_the_rest_fits(width, left_out):
    """Widths 4 + 5 + 7 + 6 and three gaps of 2 make 28; without the seconds 19."""
    table, gone = fitted(PEOPLE, width)
    assert gone == left_out
    assert max(map(len, shown(table, width).splitlines())) <= width


def test_a_name_loses_its_middle_before_a_figure_is_broken():
    table, gone = fitted([Column("model", ["m" * 90 + "-ties"], left=True), Column("score", ["0.512"])], 40)
    text = shown(table, 40)
    assert gone == [] and "0.512" in text and "…" in text and "-ties" in text
    assert all(columns(line) <= 40 for line in text.splitlines())


def test_no_markup_and_no_blanks_at_line_ends():
    assert render(["[bold]a[/bold] :smile:", "b  "], 40, False) == "[bold]a[/bold] :smile:\nb"
