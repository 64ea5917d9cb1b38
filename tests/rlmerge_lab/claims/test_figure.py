"""Intervals, p values and outcomes, worked by hand."""

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmerge_lab.claims.figure import Figure, Margin, Outcome, Side, bounds, difference, from_seeds, level, p_value

MARGIN = Margin(0.05)
FIVE = {(seed, "t"): value for seed, value in enumerate((0.01, 0.02, 0.03, 0.04, 0.05))}
ZERO = dict.fromkeys(FIVE, 0.0)


def test_interval_and_p_of_five_seeds_by_hand():
    # Mean 3, s = √2.5, so the half width is 2.776445 · √2.5 / √5 = 1.963243.
    found = difference("d", FIVE, ZERO, Side.ABOVE, MARGIN)
    low, high = found.bounds
    # 2.776445 is t's quantile rounded to its printed digits.
    assert (low, high) == (pytest.approx(0.0103676, abs=1e-7), pytest.approx(0.0496324, abs=1e-7))
    assert found.a == pytest.approx(0.03) and found.b == 0.0
    # For 4 degrees of freedom F(t) = 1/2 + 3/8 · t/√(1 + t²/4) · (1 − t²/(12 (1 + t²/4))), here t² = 18.
    t = math.sqrt(18)
    upper = 3 / 8 * t / math.sqrt(5.5) * (1 - 18 / (12 * 5.5))
    assert found.p == pytest.approx(1 - 2 * upper, rel=1e-9)


TABLE = [(2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (9, 2.262), (30, 2.042), (120, 1.980)]
"""Two-sided 95 % points of Student's t as printed in textbooks, to three decimals."""


@pytest.mark.parametrize(("freedom", "point"), TABLE)
def test_intervals_and_p_agree_with_the_table(freedom, point):
    values = [float(n % 2) for n in range(freedom)] + [0.5]
    error = statistics.stdev(values) / math.sqrt(len(values))
    low, high = bounds(values)
    assert (high - low) / 2 / error == pytest.approx(point, abs=5e-4)
    # Moved so that its mean is the table's point in standard errors: p is 5 %, to the digits that are printed.
    shift = point * error - sum(values) / len(values)
    assert p_value([value + shift for value in values]) == pytest.approx(0.05, abs=5e-5)


def test_p_of_two_values_is_cauchy():
    # Mean 2, s = 2√2·½ = √2, so t = 2 / (√2/√2) = 2 with one degree of freedom.
    assert p_value([1.0, 3.0]) == pytest.approx(1 - 2 / math.pi * math.atan(2.0), rel=1e-12)


def test_the_interval_of_two_degrees_of_freedom_by_hand():
    # 1, 2, 3: mean 2, s = 1, and t(0.975, 2) = 0.95 · √2 / √(1 − 0.95²).
    half = 0.95 * math.sqrt(2) / math.sqrt(1 - 0.95**2) / math.sqrt(3)
    assert bounds([1.0, 2.0, 3.0]) == (pytest.approx(2 - half), pytest.approx(2 + half))


def test_units_are_paired_before_they_are_averaged():
    """A task that one side lacks counts on neither."""
    a = {(0, "x"): 1.0, (0, "y"): 9.0, (1, "x"): 2.0, (2, "x"): 3.0}
    b = {(0, "x"): 0.0, (1, "x"): 1.0, (1, "z"): 50.0, (2, "x"): 2.0}
    assert difference("d", a, b, Side.ABOVE, MARGIN).differences == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("values", "side", "outcome"),
    [
        ((0.10, 0.12, 0.11), Side.ABOVE, Outcome.SUPPORTED),
        ((0.10, 0.12, 0.11), Side.BELOW, Outcome.NOT_SUPPORTED),
        ((-0.10, -0.12, -0.11), Side.BELOW, Outcome.SUPPORTED),
        ((0.001, -0.001, 0.000), Side.ABOVE, Outcome.NOT_SUPPORTED),  # equivalent: within ±0.05
        ((0.001, -0.001, 0.000), Side.NEAR, Outcome.SUPPORTED),
        ((0.10, 0.12, 0.11), Side.NEAR, Outcome.NOT_SUPPORTED),
        ((0.5, -0.5, 0.1), Side.ABOVE, Outcome.UNDECIDED),
        ((0.04, 0.06, 0.05), Side.NEAR, Outcome.UNDECIDED),
        ((0.010, 0.011, 0.012), Side.ABOVE, Outcome.NOT_SUPPORTED),  # on the claimed side, and too small to count
        ((0.010, 0.011, 0.012), Side.BELOW, Outcome.NOT_SUPPORTED),
    ],
)
def test_outcomes(values, side, outcome):
    assert from_seeds("d", dict(enumerate(values)), dict.fromkeys(range(3), 0.0), side, MARGIN).outcome is outcome


def test_too_few_seeds_have_means_and_no_interval():
    one = from_seeds("d", {0: 0.5}, {0: 0.2}, Side.ABOVE, MARGIN)
    assert one.outcome is Outcome.UNDECIDED and one.bounds is None and one.p is None
    assert one.empty == "1 seed, and a verdict needs 3" and one.to_dict()["value"] == pytest.approx(0.3)
    assert from_seeds("d", {0: 1, 1: 2}, {0: 1, 1: 1}, Side.ABOVE, MARGIN).empty.startswith("2 seeds")


def test_nothing_to_compare():
    assert "nothing to compare" in difference("d", FIVE, {}, Side.ABOVE, MARGIN).empty
    floor = difference("d", ZERO, ZERO, Side.BELOW, MARGIN)
    assert floor.outcome is Outcome.UNDECIDED and "both sides are 0" in floor.empty
    assert level("d", {}, Side.NEAR, MARGIN).to_dict()["value"] is None


def test_equal_differences_are_certain():
    assert p_value([0.2] * 4) == 0.0 and p_value([0.0] * 4) == 1.0


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=9))
def test_p_is_below_five_percent_exactly_when_the_interval_excludes_zero(values):
    low, high = bounds(values)
    p = p_value(values)
    # At the boundary itself both are decided by the last bits.
    if min(abs(low), abs(high)) > 1e-9:
        assert (p < 0.05) == (low > 0 or high < 0)


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=9), st.floats(0.001, 0.5))
def test_opposite_claims_are_never_both_supported(values, margin):
    found = from_seeds("d", dict(enumerate(values)), dict.fromkeys(range(9), 0.0), Side.ABOVE, Margin(margin))
    pair = {found.outcome, found.flipped().outcome}
    assert pair in ({Outcome.SUPPORTED, Outcome.NOT_SUPPORTED}, {Outcome.NOT_SUPPORTED}, {Outcome.UNDECIDED})


def test_the_dict_holds_no_infinity_or_nan():
    found = Figure("d", Side.ABOVE, MARGIN).to_dict()
    assert all(value is None or isinstance(value, str | int | float) for value in found.values())
    assert found["low"] is None and found["n"] == 0
