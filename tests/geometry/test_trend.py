import math

import numpy as np
import pytest
from scipy import stats

from rlmerge.geometry.trend import trend


def test_against_scipy():
    rng = np.random.default_rng(0)
    x = np.arange(24.0)
    y = 0.9 - 0.003 * x + rng.standard_normal(24) * 0.01
    found, expected = trend(x, y), stats.linregress(x, y)
    half = stats.t.ppf(0.975, 22) * expected.stderr
    assert (found.slope, found.n) == (pytest.approx(expected.slope), 24)
    assert (found.low, found.high) == pytest.approx((expected.slope - half, expected.slope + half))
    assert found.is_clear


def test_gaps_are_left_out():
    assert trend([0, 1, 2, 3], [1.0, math.nan, 3.0, 4.0]) == trend([0, 2, 3], [1.0, 3.0, 4.0])


def test_too_few_points():
    assert math.isnan(trend([], []).slope)
    assert math.isnan(trend([3], [1.0]).slope)
    two = trend([0, 1], [1.0, 3.0])
    assert two.slope == 2.0 and math.isnan(two.low) and not two.is_clear
