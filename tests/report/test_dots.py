import math
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from rlmerge.report.dots import Dot, Dots, dot_plot


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
