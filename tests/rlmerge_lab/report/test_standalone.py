"""A chart as a file of its own."""

import re
from xml.etree import ElementTree

import pytest

from rlmerge.report.heat import heat_map
from rlmerge.report.rows import Dot, Dots, dot_plot
from rlmerge_lab.report.standalone import standalone

DOTS = dot_plot("Title", "Words", ["row"], [Dots("a & b", 3, [Dot(0, 0.5, 0.4, 0.6)])], x_label="x")
HEAT = heat_map("Heat", "Words", [0, 1], [0, 1], [[0, 1], [2, 3]], x_label="x", y_label="y", unit="u")


@pytest.mark.parametrize("chart", [DOTS, HEAT])
def test_is_well_formed_and_has_a_size(chart):
    root = ElementTree.fromstring(standalone(chart, [("one", 0), ("two", 1)]))
    left, top, wide, tall = map(float, root.get("viewBox").split())
    assert (left, wide) == (-8, 436) and top == -28
    assert float(root.get("width")) / float(root.get("height")) == pytest.approx(wide / tall, abs=0.01)


@pytest.mark.parametrize("chart", [DOTS, HEAT])
def test_every_colour_it_uses_is_defined_in_both_themes(chart):
    content = standalone(chart)
    light, dark = re.findall(r":root \{(.*?)\}", content, re.DOTALL)
    used = set(re.findall(r"var\((--[a-z0-9]+)\)", content))
    for theme in (light, dark):
        assert used <= set(re.findall(r"(--[a-z0-9]+):", theme))
    assert "prefers-color-scheme: dark" in content
    for name in re.findall(r'class="(?:[^"]* )?([sh]\d+)"', content):
        assert f".{name} {{" in content


def test_what_only_a_page_can_do_is_gone():
    content = standalone(HEAT)
    assert "data-" not in content and "tabindex" not in content and 'class="cell"' not in content


def test_a_long_legend_takes_more_rows():
    names = [(f"series number {n}", n) for n in range(6)]
    one, many = (ElementTree.fromstring(standalone(DOTS, legend)) for legend in (names[:1], names))
    # "series number 0" takes 26 + 15 · 7 = 131 units, so three stand in a row of 420 and six in two rows of 20.
    assert float(many.get("viewBox").split()[3]) - float(one.get("viewBox").split()[3]) == 20
    assert [label.text for label in many.iter("{http://www.w3.org/2000/svg}text")][:6] == [name for name, _ in names]


def test_anything_else_is_refused():
    with pytest.raises(ValueError, match="not a chart"):
        standalone("<p>no</p>")
