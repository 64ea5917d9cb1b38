import math
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from rlmerge.report import svg
from rlmerge.report.rows import Dot, Dots, Histogram, bar_plot, dot_plot, ridge_plot, stack_plot


def elements(chart, kind):
    return [e for e in ElementTree.fromstring(chart).iter() if kind in (e.get("class") or "").split()]


def test_a_mark_says_value_and_interval():
    series = [Dots("<ties>", 1, [Dot(0, 0.5, 0.4, 0.6, "; worse"), Dot(1, None), Dot(1, math.nan), Dot(1, 0.25)])]
    chart = dot_plot("T", "D", ["a", "b"], series, x_label="x", percent=True)
    said = [mark.get("data-tip") for mark in elements(chart, "mark")]
    assert said == ["a, <ties>: 50.0 % [40.0 %, 60.0 %]; worse", "b, <ties>: 25.0 %"]
    (whisker,) = elements(chart, "whisker")
    assert float(whisker.get("x1")) < float(elements(chart, "mark")[0].get("x")) + 4 < float(whisker.get("x2"))


def test_models_of_a_row_stand_apart_and_rows_grow_with_them():
    def chart(count):
        return dot_plot("T", "D", ["a", "b"], [Dots("m", 0, [Dot(0, 0.5), Dot(1, 0.5)])] * count, x_label="x")

    heights = sorted({float(mark.get("cy")) for mark in elements(chart(9), "mark")})
    assert len(heights) == 18 and min(b - a for a, b in pairwise(heights)) >= 8
    assert float(ElementTree.fromstring(chart(9)).get("viewBox").split()[3]) > 180


def test_references_are_in_view():
    chart = dot_plot("T", "D", ["a"], [Dots("m", 0, [Dot(0, 0.2, 0.1, 0.3)])], x_label="x", references=[1.0])
    (line,) = elements(chart, "reference")
    assert 0 < float(line.get("x1")) < 420


def test_one_endless_interval_is_cut_with_arrows_and_does_not_squeeze_the_others():
    dots = [Dot(0, 0.5, 0.45, 0.55), Dot(1, 0.6, 0.55, 0.65), Dot(2, 0.55, -900.0, 800.0)]
    chart = dot_plot("T", "D", ["a", "b", "c"], [Dots("m", 0, dots)], x_label="x")
    lengths = [float(w.get("x2")) - float(w.get("x1")) for w in elements(chart, "whisker")]
    assert min(lengths) > 40 and len(elements(chart, "line")) == 2


def test_nothing_to_draw_is_said():
    assert "nothing to draw" in dot_plot("T", "D", ["a"], [Dots("m", 0, [Dot(0, None)])], x_label="x")


@pytest.mark.parametrize("name", ["<script>", "a" * 300, "模型" * 40])
def test_any_label_fits_and_is_text(name):
    chart = dot_plot("T", "D", [name], [Dots(name, 0, [Dot(0, 1.0)])], x_label=name)
    (label,) = elements(chart, "row")
    assert len(label.text) <= 16 and label[0].text == name


def test_series_that_the_legend_does_not_name_stay_when_it_is_used():
    series = [Dots("m", 3, [Dot(0, 1.0)]), Dots("", 4, [Dot(0, 2.0)], toggled=False)]
    chart = dot_plot("T", "D", ["a"], series, x_label="x")
    assert [g.get("data-series") for g in ElementTree.fromstring(chart) if g.tag.endswith("g")] == ["3", None]
    assert [mark.get("data-tip") for mark in elements(chart, "mark")] == ["a, m: 1", "a: 2"]


def test_an_interval_that_is_not_known_has_no_whisker():
    dots = [Dot(0, 0.5, math.nan, math.nan), Dot(0, 0.4, 0.3, math.inf), Dot(0, 0.6, None, None)]
    chart = dot_plot("T", "D", ["a"], [Dots("m", 0, dots)], x_label="x")
    assert elements(chart, "whisker") == []
    assert [mark.get("data-tip") for mark in elements(chart, "mark")] == ["a, m: 0.5", "a, m: 0.4", "a, m: 0.6"]


def test_bars_are_as_long_as_their_values():
    chart = bar_plot("T", "D", ["a", "b", "<c>"], [0.25, 1.0, math.nan], x_label="x", percent=True)
    short, long = elements(chart, "bar")
    assert float(long.get("width")) == pytest.approx(4 * float(short.get("width")), rel=0.02)
    assert short.get("data-tip") == "a: 25.0 %" and "&lt;c&gt;" in chart
    below, above = elements(bar_plot("T", "D", ["a", "b"], [-1.0, 1.0], x_label="x"), "bar")
    assert float(below.get("x")) + float(below.get("width")) == pytest.approx(float(above.get("x")), abs=0.2)
    assert "nothing to draw" in bar_plot("T", "D", ["a"], [None], x_label="x")


def test_stacks_fill_the_whole():
    chart = stack_plot("T", "D", ["e"], [[0.25, 0.75, math.nan]], ["alone", "two", "three"])
    first, second = elements(chart, "bar")
    assert [first.get("data-tip"), second.get("data-tip")] == ["e: 25.0 % alone", "e: 75.0 % two"]
    assert float(first.get("x")) < float(second.get("x"))
    assert float(second.get("x")) + float(second.get("width")) <= svg.WIDTH


def test_bars_are_densities_on_one_scale():
    """Half the outputs in a bin twice as wide stand half as high, and totals do not matter."""
    first = Histogram("a", 0, [0, 10, 30], [5, 5])
    second = Histogram("b", 1, [0, 10, 30], [500, 500], middle=10.0)
    chart = ridge_plot("T", "D", [first, second], x_label="tokens")
    bars = [e for e in elements(chart, "fill") if e.tag.endswith("rect")]
    heights = [float(bar.get("height")) for bar in bars]
    assert heights == [38.0, 19.0, 38.0, 19.0]
    assert bars[1].get("data-tip") == "a, 10 to 30: 50.0 %"
    assert 'data-tip="b, median 10"' in chart


def test_an_empty_histogram_is_left_out():
    empty = Histogram("none", 0, [0, 1], [0])
    assert "none" not in ridge_plot("T", "D", [empty, Histogram("b", 1, [0, 1], [3])], x_label="x")
    assert "nothing to draw" in ridge_plot("T", "D", [empty, Histogram("cut", 0, [0], [1])], x_label="x")
