"""Vector metrics against numbers worked by hand, scipy, and brute force over the definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from rlmerge.errors import RequestError
from rlmerge.geometry import vector

# Subnormal magnitudes would lose the relative precision every comparison below relies on.
FLOATS = st.floats(-1e6, 1e6, allow_nan=False).filter(lambda x: x == 0 or abs(x) > 1e-6)
VECTORS = arrays(np.float64, st.integers(1, 40), elements=FLOATS)


def test_measure_of_a_vector_worked_by_hand():
    found = vector.measure(np.array([0.0, 4.0, -1.0, 0.0]))
    assert found.entries == 4
    assert found.zero_share == 0.5
    assert found.small_share == 0.5
    assert found.l0_share == 0.5  # below 0.04: the two zeros
    # |tau| sorted 0 0 1 4: (2i - n - 1) = -3 -1 1 3, so (1 + 12) / (4 * 5).
    assert found.gini == pytest.approx(13 / 20)
    # Mean 0.75; squared deviations 9/16, 169/16, 49/16, 9/16.
    m2, m4 = (9 + 169 + 49 + 9) / 64, (81 + 28561 + 2401 + 81) / 1024
    assert found.excess_kurtosis == pytest.approx(m4 / m2**2 - 3)
    assert found.top1_mass == found.top5_mass == 0.8  # one entry is the smallest top share there is
    assert found.to_dict()["gini"] == found.gini


def test_l0_counts_strictly_below_the_threshold():
    assert vector.l0_share(np.array([100.0, 1.0, 0.5, 0.999])) == 0.5  # 1.0 is not below 0.01 * 100
    assert vector.l0_share(np.array([100.0, 1.0, 0.5, 0.999]), epsilon=0.1) == 0.75


def test_l0_of_a_dense_lognormal_grows_with_the_number_of_entries():
    sample = np.exp(np.random.default_rng(0).normal(-3, 1.5, 1_000_000))
    assert vector.l0_share(sample[:10_000]) < 0.9 < 0.95 < vector.l0_share(sample)
    assert np.all(sample > 0)


def test_unchanged_share_compares_bits_and_equates_signed_zeros():
    before = np.array([0.0, 0.0, 1.0, np.nan, -2.0], np.float32)
    after = np.array([-0.0, 1.0, 1.0, np.nan, 2.0], np.float32)
    assert vector.unchanged_share(before, after) == 3 / 5
    stored = np.array([0x0000, 0x3F80, 0x3F80], np.uint16)  # bfloat16 bits: +0, 1.0, 1.0
    assert vector.unchanged_share(stored, np.array([0x8000, 0x3F80, 0x3F81], np.uint16)) == pytest.approx(2 / 3)


def test_unchanged_share_refuses_different_types_or_shapes():
    with pytest.raises(RequestError, match="float32"):
        vector.unchanged_share(np.zeros(2, np.float32), np.zeros(2, np.float64))
    with pytest.raises(RequestError, match=r"\[3\]"):
        vector.unchanged_share(np.zeros(2), np.zeros(3))


def test_small_and_relative_share_include_their_bounds():
    assert vector.small_share(np.array([1e-5, -1e-5, 1.1e-5, 0.0])) == 0.75
    before, after = np.array([1000.0, 1000.0, 0.0, 0.0]), np.array([999.0, 998.0, 0.0, 1e-9])
    assert vector.relative_share(before, after) == 0.5


@given(VECTORS)
def test_kurtosis_is_scipys(tau):
    if np.ptp(tau) > 1e-3 * max(1.0, np.abs(tau).max()):  # else both only measure cancellation
        assert vector.excess_kurtosis(tau) == pytest.approx(stats.kurtosis(tau), rel=1e-6, abs=1e-6)


@given(VECTORS)
def test_gini_is_half_the_relative_mean_difference(tau):
    magnitude = np.abs(tau)
    if magnitude.any():
        brute = np.abs(magnitude[:, None] - magnitude[None, :]).mean() / (2 * magnitude.mean())
        assert vector.gini(tau) == pytest.approx(brute, rel=1e-9, abs=1e-12)


@given(VECTORS, st.floats(1e-3, 1e3))
def test_concentration_does_not_depend_on_scale_sign_or_order(tau, scale):
    if not tau.any():
        return
    moved = -scale * tau[::-1]
    for metric in (vector.gini, lambda x: vector.top_mass(x, 5), lambda x: vector.top_mass(x, 50)):
        assert metric(moved) == pytest.approx(metric(tau), rel=1e-9, abs=1e-12)


def test_kurtosis_of_tiny_updates_does_not_underflow():
    tau = np.array([0.0, 4.0, -1.0, 0.0])
    assert vector.excess_kurtosis(tau * 1e-100) == pytest.approx(vector.excess_kurtosis(tau))


def test_top_mass_counts_entries_upwards():
    tau = np.ones(101)
    tau[:2] = 100.0
    assert vector.top_mass(tau, 1) == pytest.approx(200 / 299)  # ceil(1.01) = 2 entries
    assert vector.top_mass(tau, 100) == 1.0


def test_ratios_without_mass_or_variance_are_nan():
    flat = vector.measure(np.zeros(3))
    assert (flat.zero_share, flat.small_share, flat.l0_share) == (1.0, 1.0, 0.0)
    assert all(math.isnan(x) for x in (flat.gini, flat.excess_kurtosis, flat.top1_mass, flat.top5_mass))
    assert math.isnan(vector.excess_kurtosis(np.full(7, 0.1)))


@pytest.mark.parametrize("metric", [vector.measure, vector.l0_share, vector.gini, vector.small_share])
def test_non_finite_and_empty_inputs_are_refused(metric):
    with pytest.raises(RequestError, match="1 of 3 entries are NaN or Inf"):
        metric(np.array([1.0, np.inf, 0.0]))
    with pytest.raises(RequestError, match="empty"):
        metric(np.array([]))
