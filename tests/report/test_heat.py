import math
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmerge.report.heat import heat_map, rings


def elements(chart, kind):
    return [e for e in ElementTree.fromstring(chart).iter() if kind in (e.get("class") or "").split()]


def drawn(values, **options):
    xs, ys = list(range(len(values))), list(range(len(values[0])))
    return heat_map("T", "D", xs, ys, values, x_label="α", y_label="β", unit="score", **options)


def test_every_grid_point_says_its_value():
    chart = drawn([[0.0, 0.5], [0.25, 1.0]], percent=True)
    assert [cell.get("data-tip") for cell in elements(chart, "cell")] == [
        "α 0, β 0: 0.0 %", "α 0, β 1: 50.0 %", "α 1, β 0: 25.0 %", "α 1, β 1: 100.0 %",
    ]  # fmt: skip
    boxes = [[float(cell.get(key)) for key in ("x", "y", "width", "height")] for cell in elements(chart, "cell")]
    assert boxes[1][1] < boxes[0][1] and boxes[2][0] > boxes[0][0]  # β upwards, α to the right


def test_bands_rise_from_the_lowest_value_in_round_steps():
    chart = drawn([[0.013, 0.5], [0.25, 0.987]])
    bands = elements(chart, "iso")
    assert [band.get("class") for band in (bands[0], bands[-1])] == ["iso h0", "iso h9"]
    texts = [e.text for e in ElementTree.fromstring(chart).iter() if e.get("text-anchor") == "start"]
    assert texts == ["0.01", "0.2", "0.4", "0.6", "0.8", "0.99"]


def test_the_lowest_band_covers_everything_that_is_known():
    whole, holed = drawn([[1.0] * 3] * 3), drawn([[1.0, None, 2.0], [1.0, math.nan, 1.0], [1.0, 1.0, math.inf]])
    assert elements(whole, "iso")[0].get("d").count("M") == 1
    assert len(elements(holed, "cell")) == 6


def test_places_are_named():
    chart = drawn([[0.0, 1.0], [1.0, 0.0]], marks=[(0, 0, "<θ>"), (1, 0, "θ + τ")])
    assert [place.get("data-tip") for place in elements(chart, "place")] == ["<θ>", "θ + τ"]
    assert [label.text for label in elements(chart, "on")] == ["<θ>", "θ + τ"]


def test_nothing_to_draw_is_said():
    assert "nothing to draw" in drawn([[None, math.nan], [None, None]])
    assert "nothing to draw" in drawn([[1.0, 2.0]])


def test_pictures_can_share_their_colours():
    """0.5 to 0.6 on a scale from 0 to 1: levels 0, 0.2, 0.4 lie below it, and it reaches 0.6 in a corner."""
    chart = drawn([[0.5, 0.5], [0.5, 0.6]], within=[0.0, 1.0])
    shades = [band.get("class") for band in elements(chart, "iso")]
    assert shades == ["iso h0", "iso h2", "iso h4"]


def test_the_ends_of_the_bar_are_told_from_the_levels_beside_them():
    chart = drawn([[1.5951, 1.6], [1.7, 2.404]])
    texts = [e.text for e in ElementTree.fromstring(chart).iter() if e.get("text-anchor") == "start"]
    assert texts[:2] == ["1.595", "1.6"] and texts[-2:] == ["2.4", "2.404"]


def area(ring):
    """Signed, by the shoelace formula."""
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(ring, ring[1:] + ring[:1], strict=True)) / 2


def test_a_single_peak_is_a_diamond():
    values = [[0, 0, 0], [0, 2, 0], [0, 0, 0]]
    (ring,) = rings([0, 1, 2], [0, 1, 2], values, 1.0)
    assert sorted(ring) == [(0.5, 1.0), (1.0, 0.5), (1.0, 1.5), (1.5, 1.0)]


def test_a_region_at_the_border_ends_there():
    (ring,) = rings([0, 1], [0, 1], [[0, 0], [1, 1]], 0.25)  # rises along x, crosses 0.25 at x = 0.25
    assert min(x for x, _ in ring) == 0.25 and max(x for x, _ in ring) == 1
    assert abs(area(ring)) == pytest.approx(0.75)


def test_a_hole_is_a_ring_of_its_own_and_turns_the_other_way():
    values = [[1.0] * 5 for _ in range(5)]
    values[2][2] = 0.0
    found = sorted(rings(range(5), range(5), values, 0.5), key=lambda ring: -abs(area(ring)))
    assert [abs(area(ring)) for ring in found] == [16.0, 0.5]
    assert area(found[0]) * area(found[1]) < 0


@pytest.mark.parametrize(("corner", "pieces"), [(0.4, 2), (0.9, 1)])
def test_a_saddle_is_split_by_its_mean(corner, pieces):
    """Opposite corners at 1, the others at ``corner``: the mean is (1 + corner) / 2, against a level of 0.8."""
    values = [[1.0, corner], [corner, 1.0]]
    level = 0.8 if corner < 0.8 else 0.92
    assert len(rings([0, 1], [0, 1], values, level)) == pieces


def test_a_missing_value_is_left_out():
    whole = [[1.0] * 4 for _ in range(4)]
    whole[1][2] = math.nan
    found = rings(range(4), range(4), whole, 0.0)
    # The four cells around the missing corner each lose the triangle before it.
    assert sum(map(area, found)) == pytest.approx(math.copysign(9 - 2, sum(map(area, found))))


def test_nothing_above_the_level():
    assert rings([0, 1], [0, 1], [[0, 0], [0, 0]], 1.0) == []


@given(st.lists(st.lists(st.integers(-4, 4), min_size=4, max_size=4), min_size=2, max_size=5), st.integers(-4, 4))
def test_the_region_of_every_level_lies_within_that_of_a_lower_one(values, level):
    xs, ys = list(range(len(values))), list(range(4))

    def covered(at):
        return abs(sum(area(ring) for ring in rings(xs, ys, values, at)))

    whole = (len(xs) - 1) * 3
    assert covered(-4.5) == pytest.approx(whole)
    assert covered(level + 0.5) <= covered(level - 0.5) + 1e-9 <= whole + 2e-9
