import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmerge_lab.study.seeds import SeedInterval, interval, paired, t_quantile

TABLE = [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (9, 2.262), (30, 2.042), (120, 1.980)]
"""Two-sided 95 % points of Student's t as printed in textbooks, to three decimals."""


@pytest.mark.parametrize(("freedom", "value"), TABLE)
def test_quantiles_are_those_of_the_table(freedom, value):
    assert t_quantile(0.975, freedom) == pytest.approx(value, abs=5e-4)
    assert t_quantile(0.025, freedom) == -t_quantile(0.975, freedom)


def test_with_one_degree_of_freedom_t_is_cauchy():
    for probability in (0.55, 0.75, 0.999):
        assert t_quantile(probability, 1) == pytest.approx(math.tan(math.pi * (probability - 0.5)), rel=1e-12)


@given(st.floats(0.51, 0.999), st.integers(1, 40))
def test_the_density_integrates_to_the_probability(probability, freedom):
    """Simpson's rule over the density of t in the angle atan(t / √ν), where it is cos^(ν-1) up to a constant."""
    end = math.atan(t_quantile(probability, freedom) / math.sqrt(freedom))
    constant = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    angle = np.linspace(0.0, end, 2001)
    weights = np.where(np.arange(2001) % 2, 4.0, 2.0)
    weights[[0, -1]] = 1.0
    area = constant * float((weights * np.cos(angle) ** (freedom - 1)).sum()) * end / 2000 / 3
    # Simpson's error over 2,000 steps of these smooth functions is below 1e-11; rounding adds about 1e-13.
    assert 0.5 + area == pytest.approx(probability, abs=1e-10)


@pytest.mark.parametrize(("probability", "freedom"), [(0.0, 3), (1.0, 3), (0.5, 0)])
def test_there_is_no_other_quantile(probability, freedom):
    with pytest.raises(ValueError):
        t_quantile(probability, freedom)


def test_an_interval_worked_by_hand():
    # 1 … 5: mean 3, s = √2.5, s/√5 = √0.5, t(4) = 2.776445: 3 ± 1.963243.
    found = interval([1, 2, 3, 4, 5])
    assert (found.value, found.n, found.sign) == (3.0, 5, 1)
    assert (found.low, found.high) == pytest.approx((3 - 1.963243, 3 + 1.963243), abs=1e-6)
    assert str(found) == "3.000 [1.037, 4.963] (n = 5)"


def test_too_few_seeds_give_no_interval():
    assert interval([0.25]) == SeedInterval(0.25, None, None, 1)
    assert str(interval([0.25])) == "0.250 (n = 1)"
    assert interval([0.25]).sign == 0
    assert math.isnan(interval([]).value)


def test_signs_follow_intervals_that_exclude_0():
    assert interval([-1.0, -1.1, -0.9]).sign == -1
    assert interval([-1.0, 1.0, 0.5]).sign == 0
    assert interval([0.0, 0.0]).sign == 0


def test_pairs_are_made_seed_by_seed_and_leave_out_the_rest():
    first, second = {2: 0.5, 0: 0.75, 1: 9.0}, {0: 0.5, 2: 0.5, 7: 1.0}
    assert paired(first, second) == interval([0.25, 0.0])


def test_pairing_takes_out_what_seeds_share():
    shift = {seed: 10.0 * (seed - 2) for seed in range(5)}
    first = {seed: shift[seed] + 0.1 + 0.01 * (seed % 2) for seed in shift}
    assert paired(first, shift).sign == 1
    assert interval(list(first.values())).sign == 0
