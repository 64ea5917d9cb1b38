import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmerge_lab.study.tuning import SearchPoint, close, radical_inverse, shares, wide


def test_digits_are_mirrored():
    assert [radical_inverse(index, 2) for index in range(1, 8)] == [0.5, 0.25, 0.75, 0.125, 0.625, 0.375, 0.875]
    assert [radical_inverse(index, 3) for index in (1, 2, 3, 4)] == [1 / 3, 2 / 3, 1 / 9, 4 / 9]


@pytest.mark.parametrize(("trials", "expected"), [(2, (1, 0)), (3, (1, 1)), (8, (4, 3)), (12, (6, 5))])
def test_half_of_the_trials_look_wide_and_one_is_the_default(trials, expected):
    assert shares(trials) == expected
    assert 1 + sum(shares(trials)) == trials


def test_wide_scales_worked_by_hand():
    # The range 1/16 … 4 is 64 = 2^6: its middle is 1/2, its quarters 2^(±3/2) of that, its eighth 2^(3/4) / 16.
    assert [point.size for point in wide(4)] == pytest.approx([0.5, 2**-2.5, 2**0.5, 2**-3.25])
    assert [point.knob for point in wide(4)] == [1 / 3, 2 / 3, 1 / 9, 4 / 9]


def test_close_looks_within_a_quarter_of_the_range_around_the_centre():
    # Offsets (u - ½)/4 of u = ¼, ¾, ⅛ are -1/16, 1/16, -3/32 of the six octaves.
    found = close(SearchPoint.at(1.0, 0.5), 3)
    assert [point.size for point in found] == pytest.approx([2 ** (-3 / 8), 2 ** (3 / 8), 2 ** (-9 / 16)])
    assert [point.knob for point in found] == pytest.approx([0.5 + 1 / 24, 0.5 - 7 / 72, 0.5 - 1 / 72])


@given(st.floats(0.01, 100), st.floats(0, 1), st.integers(0, 40))
def test_close_parameters_keep_to_their_range_and_no_scale_is_tried_twice(size, knob, count):
    found = close(SearchPoint.at(size, knob), count)
    assert all(0 <= point.knob <= 1 for point in found)
    assert len({point.scale for point in found} | {SearchPoint.at(size, knob).scale}) == count + 1
    assert all(size / 2**0.75 * (1 - 1e-9) <= point.size <= size * 2**0.75 * (1 + 1e-9) for point in found)


@given(st.floats(1e-3, 1e3))
def test_a_scale_outside_the_range_is_a_place_too(size):
    assert SearchPoint.at(size, 0.0).size == pytest.approx(size)
