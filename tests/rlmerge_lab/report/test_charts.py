"""Charts whose numbers and keys follow from what is drawn."""

import re

import pytest

from rlmerge.report.rows import Dot, Dots
from rlmerge_lab.report.charts import curve, dots, lines, spread


def places(svg, color):
    """Centres of the marks of a colour whose marks are circles."""
    return [
        (float(x), float(y))
        for x, y in re.findall(rf'<circle cx="([\d.]+)" cy="([\d.]+)" r="[\d.]+" class="mark s{color}"', svg)
    ]


def test_a_power_law_is_a_line_on_two_logarithmic_axes():
    chart = lines(
        "k", "t", "n", [curve("law", 0, [(n, 2 * n**-0.5) for n in (1, 10, 100)])], x_label="x", y_label="y", log="xy"
    )
    (x0, y0), (x1, y1), (x2, y2) = places(chart.svg, 0)
    # Marks are placed to a tenth of a unit.
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2) and y1 - y0 == pytest.approx(y2 - y1, abs=0.2)
    assert x0 < x1 < x2 and y0 < y1 < y2


def test_the_table_of_curves_has_every_point_with_its_band():
    chart = lines("k", "t", "n", [curve("a", 0, [(1, 0.5, 0.1)]), curve("b", 1, [(2, 3)])], x_label="x", y_label="y")
    assert chart.sheet.head == ["series", "x", "y"]
    assert chart.sheet.rows == [["a", "1", "0.5 [0.4, 0.6]"], ["b", "2", "3"]]
    assert chart.legend == (("a", 0), ("b", 1))


def test_series_of_one_name_are_named_once():
    assert lines("k", "t", "n", [curve("a", 0, [(1, 1)]), curve("a", 0, [(2, 1)])], x_label="", y_label="").legend == (
        ("a", 0),
    )


def test_the_table_of_dots_has_a_row_for_each_label_and_a_dash_for_what_is_absent():
    series = [Dots("ours", 0, [spread(0, 0.5, 0.25), Dot(1, 2.0)]), Dots("paper", 1, [Dot(1, 3.0)])]
    chart = dots("k", "t", "n", ["r", "s"], series, x_label="x")
    assert chart.sheet.rows == [["r", "0.5 [0.25, 0.75]", "–"], ["s", "2", "3"]]
