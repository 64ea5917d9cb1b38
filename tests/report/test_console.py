import pytest

from rlmerge.report.console import Column, duration_text, fitted, render, size_text, table, warning_lines
from rlmerge.text import columns


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


def test_parts_stand_apart_and_are_not_wrapped_where_asked():
    made = table("name", ">score", rules=False)
    made.add_row("[b]ties", "0.5")
    parts = ["x" * 50, made, *warning_lines(["[b]odd"])]
    assert render(parts, 40, False, apart=True).split("\n\n") == [
        "x" * 50,
        "name     score\n[b]ties    0.5",
        "warning: [b]odd",
    ]
    assert "\x1b[" in render(parts, 40, True, apart=True)


def test_a_table_without_titles_has_no_head():
    made = table("", "", rules=False)
    made.add_row("a", "b")
    assert render([made], 40, False) == "a  b"


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1_980_000_000, "1.98 GB"),
        (999_600, "1 MB"),
        (5 * 10**15, "5000 TB"),
    ],
)
def test_size_text(nbytes, text):
    assert size_text(nbytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.421, "0.42 s"), (12.34, "12.3 s"), (59.97, "1:00"), (65, "1:05"), (7389, "2:03:09")],
)
def test_duration_text(seconds, text):
    assert duration_text(seconds) == text


def test_strings_look_the_same_alone_and_beside_other_parts():
    parts = ["first [bold]line[/bold] :smile:  ", "a " * 60 + "long one", "two\nlines"]
    alone, beside = (render(each, 40, color=False, apart=True) for each in (parts, [*parts, table("end", rules=False)]))
    assert beside == f"{alone}\n\nend"
    assert render(parts, 40, color=True, apart=True) == alone
