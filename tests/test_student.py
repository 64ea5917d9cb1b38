import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmerge.student import central_probability, p_value, quantile

TABLE = [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (9, 2.262), (30, 2.042), (120, 1.980)]
"""Two-sided 95 % points of Student's t as printed in textbooks, to three decimals."""


@pytest.mark.parametrize(("freedom", "value"), TABLE)
def test_quantiles_are_those_of_the_table(freedom, value):
    assert quantile(0.975, freedom) == pytest.approx(value, abs=5e-4)
    assert quantile(0.025, freedom) == -quantile(0.975, freedom)
    # The table's third decimal moves p by less than 0.0005 times the density there, which is below 0.1.
    assert p_value(value, freedom) == p_value(-value, freedom) == pytest.approx(0.05, abs=5e-5)


def test_with_one_degree_of_freedom_t_is_cauchy():
    for probability in (0.55, 0.75, 0.999):
        assert quantile(probability, 1) == pytest.approx(math.tan(math.pi * (probability - 0.5)), rel=1e-12)
    assert p_value(1.0, 1) == pytest.approx(0.5, abs=1e-15)


def test_with_two_degrees_of_freedom_there_is_a_closed_form():
    # P(|T| < t) = t / √(2 + t²)
    assert central_probability(3.0, 2) == pytest.approx(3 / math.sqrt(11), abs=1e-15)


@given(st.floats(0.51, 0.999), st.integers(1, 40))
def test_the_density_integrates_to_the_probability(probability, freedom):
    """Simpson's rule over the density of t in the angle atan(t / √ν), where it is cos^(ν-1) up to a constant."""
    end = math.atan(quantile(probability, freedom) / math.sqrt(freedom))
    constant = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    angle = np.linspace(0.0, end, 2001)
    weights = np.where(np.arange(2001) % 2, 4.0, 2.0)
    weights[[0, -1]] = 1.0
    area = constant * float((weights * np.cos(angle) ** (freedom - 1)).sum()) * end / 2000 / 3
    # Simpson's error over 2,000 steps of these smooth functions is below 1e-11; rounding adds about 1e-13.
    assert 0.5 + area == pytest.approx(probability, abs=1e-10)


@pytest.mark.parametrize("freedom", [1, 2, 3, 7, 30, 126])
def test_against_scipy(freedom):
    stats = pytest.importorskip("scipy.stats")
    for t in (0.0, 0.3, 2.0, 9.0):
        assert p_value(t, freedom) == pytest.approx(2 * stats.t.sf(t, freedom), abs=1e-14)
    assert quantile(0.9995, freedom) == pytest.approx(stats.t.ppf(0.9995, freedom), rel=1e-12)


def test_a_statistic_far_out_has_no_negative_p():
    assert p_value(1e9, 3) == pytest.approx(0.0, abs=1e-15) and p_value(math.inf, 4) == 0.0


@pytest.mark.parametrize(("probability", "freedom"), [(0.0, 3), (1.0, 3), (0.5, 0)])
def test_there_is_no_other_quantile(probability, freedom):
    with pytest.raises(ValueError, match="no quantile"):
        quantile(probability, freedom)
    with pytest.raises(ValueError, match="at least 1 degree"):
        p_value(1.0, 0)
