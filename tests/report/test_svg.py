from xml.etree import ElementTree

import pytest

from rlmerge.report import svg
from rlmerge.report.svg import Scale, ticks


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


def test_nothing_to_draw_is_said():
    root = ElementTree.fromstring(svg.nothing("T & U", "<D>"))
    assert root.attrib["role"] == "img" and root.attrib["aria-label"] == "T & U" and root.attrib["tabindex"] == "0"
    assert "".join(root.itertext()) == "<D>nothing to draw"


def test_a_mark_explains_itself_and_has_a_shape_of_its_own():
    made = [svg.marker(10, 20, color, 'a "b"') for color in range(4)]
    assert len({mark.split()[0] + mark[:30] for mark in made}) == 4
    assert all('data-tip="a &quot;b&quot;"' in mark for mark in made)
