"""Closed forms against simulation, scipy's integral of a Lorenz curve, and each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from rlmerge.geometry.vector import gini, l0_share
from rlmerge_lab.scaling.expectation import gini_of_zero_share, l0_of_zero_share, zero_share_of_gini
from rlmerge_lab.scaling.generator import rng, task_vector


def test_gini_of_a_dense_lognormal_is_one_minus_twice_the_area_under_its_lorenz_curve():
    # The Lorenz curve of a log-normal is Phi(Phi^-1(p) - sigma).
    area, _ = integrate.quad(lambda p: stats.norm.cdf(stats.norm.ppf(p) - 1.5), 0, 1)
    assert gini_of_zero_share(0.0) == pytest.approx(1 - 2 * area, abs=1e-7)


def test_gini_agrees_with_a_large_sample():
    tau = task_vector(rng(0), 400_000, 40_000)
    # Sampling error of a Gini over 40 000 heavy-tailed values, scaled by the active share, is below 0.001.
    assert gini(tau) == pytest.approx(gini_of_zero_share(0.9), abs=1e-3)


@given(st.floats(0.0, 1.0))
def test_zero_share_of_gini_inverts(share):
    assert zero_share_of_gini(gini_of_zero_share(share)) == pytest.approx(share, abs=1e-12)


def test_the_papers_gini_at_1b_says_what_the_generator_was_fed():
    assert zero_share_of_gini(0.9268) == pytest.approx(0.7466, abs=1e-4)


@pytest.mark.parametrize(("zeros", "entries"), [(0.0, 10_000), (0.9, 20_000)])
def test_expected_l0_is_the_mean_over_many_draws(zeros, entries):
    active = round((1 - zeros) * entries)
    draws = [l0_share(task_vector(rng(1, t), entries, active)) for t in range(200)]
    error = np.std(draws) / math.sqrt(len(draws))
    # Four standard errors, and the 1/n by which the maximum itself is counted as one of the others.
    assert abs(l0_of_zero_share(zeros, entries) - np.mean(draws)) < 4 * error + 1 / active


def test_l0_of_a_dense_vector_grows_towards_one_with_its_length_alone():
    values = [l0_of_zero_share(0.0, n) for n in (1e4, 1e5, 4e6, 7e10)]
    assert values == sorted(values)
    assert values[0] < 0.8 and values[-1] > 0.9998


def test_l0_does_not_see_the_scale():
    tau = task_vector(rng(2), 5_000, 500)
    assert l0_share(1000 * tau) == l0_share(tau)
