"""Slopes over sizes, worked by hand and against NumPy's least squares."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmerge_lab.claims.figure import Margin, Side, from_seeds
from rlmerge_lab.claims.trend import Direction, slope_of, trend


def figure(*values):
    return from_seeds("f", dict(enumerate(values)), dict.fromkeys(range(len(values)), 0.0), Side.ABOVE, Margin(0.02))


def test_slope_and_interval_by_hand():
    # x̄ = 1, Σ(x−x̄)² = 2; slope (−1·1 + 1·4)/2 = 1.5; residuals 1 − 0.833…, −0.333…, 0.1666…: Σ² = 1/6, one degree of
    # freedom, so the error is √(1/6/2) and t(0.975, 1) = 12.7062.
    slope, (low, high) = slope_of([(0.0, 1.0), (1.0, 2.0), (2.0, 4.0)])
    half = 12.7062 * math.sqrt(1 / 12)
    assert slope == pytest.approx(1.5)
    # To the digits of t that are printed in tables.
    assert (low, high) == (pytest.approx(1.5 - half, abs=1e-4), pytest.approx(1.5 + half, abs=1e-4))


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(-1, 1)), min_size=4, max_size=20).filter(
    lambda points: len({x for x, _ in points}) > 1))  # fmt: skip
def test_slope_agrees_with_least_squares(points):
    xs, ys = np.array([x for x, _ in points], float), np.array([y for _, y in points])
    # NumPy solves the same problem by singular values; both lose a few bits.
    assert slope_of([(float(x), y) for x, y in points])[0] == pytest.approx(np.polyfit(xs, ys, 1)[0], abs=1e-9)


def test_directions():
    up = [(10**5, figure(0.10, 0.11, 0.12)), (10**6, figure(0.20, 0.21, 0.22)), (10**7, figure(0.30, 0.31, 0.32))]
    grows = trend(up)
    assert grows.direction is Direction.GROWS and grows.slope == pytest.approx(0.1)
    assert (grows.sizes, grows.values) == (3, 9)
    falls = trend([(10**12 // weights, one) for weights, one in up])
    assert falls.direction is Direction.FALLS
    same = trend([(10**5, figure(0.1, 0.2, 0.3)), (10**6, figure(0.3, 0.1, 0.2))])
    assert same.direction is Direction.NONE and same.slope == pytest.approx(0.0)


@pytest.mark.parametrize(
    "figures",
    [
        [],
        [(10**5, figure(0.1, 0.2, 0.3))],
        [(10**5, figure(0.1, 0.2, 0.3)), (10**5, figure(0.3, 0.4, 0.5))],
        [(10**5, figure(0.1, 0.2, 0.3)), (10**6, figure(0.3, 0.4))],
    ],
)
def test_one_size_or_too_few_seeds_decide_nothing(figures):
    found = trend(figures)
    assert found.direction is Direction.UNDECIDED and found.slope is None
