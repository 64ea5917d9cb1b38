"""Tables and pictures in files, on pages and in terminals."""

import pytest
from rich.table import Table

from rlmerge.report.console import render
from rlmerge_lab.report.parts import Picture, Sheet, html_pictures, html_sheet, html_sheets, text_sheet


def test_csv_quotes_what_needs_it():
    sheet = Sheet("title", ("a", "b"), (("1,5", "x"), ('say "hi"', "y")))
    assert sheet.to_csv() == 'a,b\n"1,5",x\n"say ""hi""",y\n'


def test_a_ragged_table_is_refused():
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        Sheet("title", ("a", "b"), (("1",),))


def test_what_holds_nothing_is_left_out():
    sheet = Sheet("title", ("row", "a", "b"), (("x", "1", "–"), ("y", "–", "–"))).filled()
    assert (sheet.head, sheet.rows) == (["row", "a"], [["x", "1"]])
    assert html_sheets([Sheet("title", ("row", "a"), ())]) == ""


def test_the_note_stands_with_the_caption():
    assert "<caption>Sizes. In &lt;GB&gt;.</caption>" in html_sheet(Sheet("Sizes", ("a",), (("1",),), "In <GB>."))


def test_a_picture_comes_with_its_numbers_and_a_key():
    picture = Picture("k", "Title", "Note", "<svg></svg>", Sheet("s", ("a",), (("17",),)), (("one & two", 3),))
    shown = html_pictures([picture], named=True)
    assert "one &amp; two</li>" in shown and ">17<" in shown.split("Show the numbers")[1]
    assert "one &amp; two" not in html_pictures([picture])


WIDE = Sheet("title", ("size", "first column", "b", "c"), (("1B", "12", "1234567", "1"),))


@pytest.mark.parametrize(("width", "parts"), [(30, 1), (29, 2), (15, 3)])
def test_wide_tables_are_cut_between_columns_and_repeat_their_label(width, parts):
    # Widths 4, 12, 7 and 1 with gaps of 2: 30 together; without the last 27; of the last three 16.
    made = text_sheet(WIDE, width)
    assert len(made) == parts and all(isinstance(part, Table) for part in made)
    shown = render(made, width, color=False)
    assert shown.count("1B") == parts and "1234567" in shown and "column" in shown


def test_names_from_outside_do_not_move_the_cursor():
    shown = render(text_sheet(Sheet("t", ("a", "b"), (("\x1b[31mred", "1"),)), 60), 60, color=False)
    assert "\x1b" not in shown and "red" in shown
