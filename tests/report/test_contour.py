import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmerge.report.contour import rings


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
