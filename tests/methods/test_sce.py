"""SCE step by step on an example by hand, and where variances or energies vanish."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.examples import BASE, experts, whole_deltas
from support.interpret import interpret, statistics_of

TAU = np.array([[4.0, 1.0, 0.0, 2.0], [-2.0, 1.0, 2.0, 2.0]])
# Variances of the columns: 9, 0, 1, 0. Energies: 16 + 1 + 0 + 4 = 21 and 4 + 1 + 4 + 4 = 13.


def reference(tau, share):
    """SCE from its three steps, with thresholds by sorting."""
    spread = tau.var(axis=0)
    spread[(tau == tau[0]).all(0)] = 0  # NumPy's mean of equal numbers need not be that number
    count = np.count_nonzero(spread)
    if share < 1 and count:
        threshold = np.sort(spread, axis=None)[::-1][max(1, int(share * count)) - 1] if share else np.inf
        tau = np.where(spread >= threshold * (1 - 1e-12), tau, 0)
    elif share == 0:
        tau = np.zeros_like(tau)
    energy = (tau**2).reshape(len(tau), -1).sum(1)
    weight = energy / energy.sum() if energy.sum() else np.full(len(tau), 1 / len(tau))
    weight = weight.reshape(-1, *[1] * (tau.ndim - 1))
    agree = tau * np.where(tau.sum(0) >= 0, 1, -1) > 0
    mass = (weight * agree).sum(0)
    return (weight * agree * tau).sum(0) / np.where(mass == 0, 1, mass)


def test_all_positions_by_hand():
    # Column 0 elects + (4 − 2): 4 alone. Column 2: 2 alone. Columns 1 and 3: weighted means of equal numbers.
    np.testing.assert_allclose(interpret("sce", np.zeros(4), TAU), [4, 1, 2, 2], rtol=1e-15)


def test_select_keeps_the_positions_where_experts_differ_most():
    # Two of four positions differ at all; half of these is one: column 0.
    np.testing.assert_array_equal(interpret("sce", np.zeros(4), TAU, select_topk=0.5), [4, 0, 0, 0])


def test_weights_are_shares_of_squared_change():
    assert statistics_of("sce", np.zeros(4), TAU)["share"].tolist() == [21 / 34, 13 / 34]
    # After selecting column 0 alone: 16 and 4.
    assert statistics_of("sce", np.zeros(4), TAU, select_topk=0.5)["share"].tolist() == [0.8, 0.2]


@pytest.mark.parametrize("size", [1.0, 1e-3, 1e-6])
def test_weights_do_not_depend_on_how_small_changes_are(size):
    share = statistics_of("sce", np.zeros(4), size * TAU)["share"]
    np.testing.assert_allclose(share, [21 / 34, 13 / 34], rtol=1e-12)


def test_mergekits_floor_makes_small_changes_equal():
    merged = interpret("sce", np.zeros(2), 1e-4 * np.array([[1.0, 1.0], [3.0, 0.0]]), compat=True)
    np.testing.assert_allclose(merged, [2e-4, 1e-4], rtol=1e-12)  # equal weights: the mean of 1 and 3
    ours = interpret("sce", np.zeros(2), 1e-4 * np.array([[1.0, 1.0], [3.0, 0.0]]))
    # Energies 2 and 9: (2 · 1 + 9 · 3) / 11.
    np.testing.assert_allclose(ours, [29e-4 / 11, 1e-4], rtol=1e-12)


@given(whole_deltas(3), st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_equals_the_steps(tau, share):
    merged = interpret("sce", BASE, experts(BASE, tau), select_topk=share)
    # A dozen roundings of numbers below 16.
    np.testing.assert_allclose(merged, BASE + reference(tau, share), rtol=0, atol=2.0**-46)


@given(whole_deltas(1), st.integers(1, 4), st.sampled_from([0.3, 1.0]))
def test_equal_experts_merge_to_the_expert(tau, count, share):
    merged = interpret("sce", BASE, experts(BASE, np.repeat(tau, count, axis=0)), select_topk=share)
    np.testing.assert_allclose(merged, BASE + tau[0], rtol=0, atol=2.0**-48)


@given(whole_deltas(3), st.permutations(range(3)))
def test_the_order_of_experts_does_not_matter(tau, order):
    merged = interpret("sce", BASE, experts(BASE, tau))
    again = interpret("sce", BASE, experts(BASE, tau[list(order)]))
    # Weights are added up in another order.
    np.testing.assert_allclose(again, merged, rtol=0, atol=2.0**-46)


def test_mergekit_selects_nothing_where_experts_differ_nowhere():
    same = np.repeat(TAU[:1], 2, axis=0)
    for tau in (TAU[:1], same):
        assert interpret("sce", np.zeros(4), tau, select_topk=0.5).tolist() == TAU[0].tolist()
        assert not interpret("sce", np.zeros(4), tau, select_topk=0.5, undecided="none").any()
        assert interpret("sce", np.zeros(4), tau, compat=True).tolist() == TAU[0].tolist()  # all is asked for
    # Two positions differ; 0.4 of them is none for mergekit.
    assert not interpret("sce", np.zeros(4), TAU, select_topk=0.4, compat=True).any()
    assert interpret("sce", np.zeros(4), TAU, select_topk=0.4).any()
