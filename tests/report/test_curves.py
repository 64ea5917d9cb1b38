import math
from xml.etree import ElementTree

from rlmerge.report.curves import Curve, Point, curve_plot


def elements(chart, kind):
    return [e for e in ElementTree.fromstring(chart).iter() if kind in (e.get("class") or "").split()]


def test_gaps_cut_the_line_and_its_band():
    points = [Point(0, 1, 0, 2), Point(1, 2, 1, 3), Point(2, None), Point(3, math.nan, 0, 1), Point(4, 1, 0, 2)]
    chart = curve_plot("T", "D", [Curve("c", 0, points)], x_label="x", y_label="y")
    assert len(elements(chart, "band")) == 1  # a lone point has no band
    assert [path.get("d").count("L") for path in elements(chart, "line")] == [1, 0]
    assert [mark.get("data-tip") for mark in elements(chart, "mark")] == [
        "c, 0: 1 [0, 2]",
        "c, 1: 2 [1, 3]",
        "c, 4: 1 [0, 2]",
    ]


def test_larger_is_higher_up_also_below_zero():
    chart = curve_plot("T", "D", [Curve("c", 0, [Point(0, -2.0), Point(1, -1.0)])], x_label="x", y_label="y")
    low, high = (float(mark.get("cy")) for mark in elements(chart, "mark"))
    assert high < low


def test_a_logarithmic_axis_leaves_out_what_it_cannot_show():
    points = [Point(x, 0.5) for x in (0.0, 0.01, 0.1, 1.0)]
    chart = curve_plot("T", "D", [Curve("c", 0, points)], x_label="x", y_label="y", log_x=True)
    places = [float(mark.get("cx")) for mark in elements(chart, "mark")]
    assert len(places) == 3 and abs((places[2] - places[1]) - (places[1] - places[0])) < 0.11  # drawn to 0.1 units


def test_references_and_places_are_in_view():
    chart = curve_plot(
        "T", "D", [Curve("c", 0, [Point(0, 0.2)], dashed=True)], x_label="x", y_label="y", percent=True,
        references=[1.0], x_marks=[(2.0, "average")],
    )  # fmt: skip
    (reference,), (place,) = elements(chart, "reference"), elements(chart, "landmark")
    assert 0 < float(reference.get("y1")) < 220 and float(place.get("x1")) > 300
    assert "average" in chart and elements(chart, "dashed")


def test_nothing_to_draw_is_said():
    assert "nothing to draw" in curve_plot("T", "D", [Curve("c", 0, [Point(0, None)])], x_label="x", y_label="y")


def test_an_interval_that_is_not_known_has_no_band():
    points = [Point(0, 1.0, math.nan, math.nan), Point(1, 2.0, 1.0, math.inf)]
    chart = curve_plot("T", "D", [Curve("c", 0, points)], x_label="x", y_label="y", within=[0.0])
    assert elements(chart, "band") == []
    assert [mark.get("data-tip") for mark in elements(chart, "mark")] == ["c, 0: 1", "c, 1: 2"]


def test_places_on_x_are_whole_and_spelled():
    points = [Point(-3, 0.1), Point(-1, 0.2)]
    chart = curve_plot(
        "T", "D", [Curve("c", 0, points)], x_label="x", y_label="y", whole_x=True, x_text=lambda e: f"2^{e:g}"
    )
    labels = [e.text for e in ElementTree.fromstring(chart).iter() if e.get("class") == "tick"]
    assert {"2^-3", "2^-2", "2^-1"} <= set(labels) and "2^-2.5" not in labels
    assert elements(chart, "mark")[0].get("data-tip") == "c, 2^-3: 0.1"
