import math
from xml.etree import ElementTree

import pytest

from rlmerge.report import svg
from rlmerge.report.svg import Scale, Series, lines, rows, stacks, ticks


def marks(chart):
    return [e for e in ElementTree.fromstring(chart).iter() if "data-tip" in e.attrib]


def test_scale_maps_ends_to_ends():
    scale = Scale(0.0, 2.0, 10.0, 110.0)
    assert [scale(v) for v in (0.0, 1.0, 2.0)] == [10.0, 60.0, 110.0]
    assert Scale(1.0, 1.0, 0.0, 5.0)(1.0) == 0.0


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (0.013, 0.041, [0.02, 0.03, 0.04]), (-24, -6, [-20, -15, -10]), (3, 3, [3])],
)
def test_ticks_are_round_and_inside(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


def test_lines_are_drawn_where_there_are_values():
    series = [Series("<a>", 0, [(0, 0.5), (1, math.nan), (2, 0.75)]), Series("b", 13, [(0, 0.25)])]
    chart = lines("T", "D", series, x_label="x", y_label="y", percent=True)
    tips = [m.attrib["data-tip"] for m in marks(chart)]
    assert tips == ["<a>, 0: 50.0 %", "<a>, 2: 75.0 %", "b, 0: 25.0 %"]
    root = ElementTree.fromstring(chart)
    assert root.attrib["role"] == "img" and root.attrib["aria-label"] == "T" and root.attrib["tabindex"] == "0"
    heights = [float(m.attrib["cy"]) for m in marks(chart)[:2]]
    assert heights[1] < heights[0]  # larger is higher up


def test_nothing_to_draw_is_said():
    assert "nothing to draw" in lines("T", "D", [], x_label="x", y_label="y", percent=False)
    assert not marks(rows("T", "D", ["r"], [Series("a", 0, [(0, math.nan)])], percent=False, x_label="x"))


def test_dots_of_one_row_do_not_hide_each_other():
    series = [Series(name, k, [(0, 0.5)]) for k, name in enumerate("ac")]
    first, second = marks(rows("T", "D", ["row"], series, percent=True, x_label="x", reference=1.0))
    assert float(first.attrib["cy"]) != float(second.attrib["y"]) + 4


def test_bars_are_as_long_as_their_values():
    bars = [Series("all", 0, [(0, 0.25), (1, 1.0)])]
    short, long = marks(rows("T", "D", ["a", "b"], bars, percent=True, x_label="x", bars=True))
    assert float(long.attrib["width"]) == pytest.approx(4 * float(short.attrib["width"]), rel=0.02)


def test_stacks_fill_the_whole():
    found = marks(stacks("T", "D", ["e"], [[0.25, 0.75, math.nan]], ["alone", "two", "three"]))
    assert [m.attrib["data-tip"] for m in found] == ["e: 25.0 % alone", "e: 75.0 % two"]
    assert float(found[0].attrib["x"]) < float(found[1].attrib["x"])
    assert float(found[1].attrib["x"]) + float(found[1].attrib["width"]) <= svg.WIDTH
