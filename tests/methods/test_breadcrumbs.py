"""Breadcrumbs: both ends of the magnitudes are dropped, exactly, by a full sort as reference."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.examples import BASE, TAU, at, experts, whole_deltas
from support.interpret import interpret, statistics_of


def kept_by_sorting(delta, density, gamma):
    """Mask of what stays: ranks counted on all entries, equal magnitudes at either end kept."""
    size = np.sort(np.abs(delta), axis=None)[::-1]
    keep = max(1, int(density * delta.size)) if density > 0 else 0
    drop = min(int(gamma * delta.size), delta.size - keep)
    if not keep:
        return np.zeros(delta.shape, bool)
    return (np.abs(delta) <= size[drop]) & (np.abs(delta) >= size[drop + keep - 1])


def test_the_example_by_hand():
    # Of 16 entries one is dropped from the top (gamma 1/16) and two are kept (density 2/16).
    # Expert 1: 4 | 3 2 | 1 1. Expert 2: 5 | 4 2 2 | 1 1, where both 2s stay. Expert 3: 6 | 3 and, next, zero.
    merged = interpret("breadcrumbs", BASE, experts(BASE, TAU), density=2 / 16, gamma=1 / 16)
    expected = at(r0c0=-2, r1c0=3, r1c3=-2, r2c1=2 + 4 - 3)
    np.testing.assert_array_equal(merged, BASE + expected)


def test_with_election_only_the_majority_is_added():
    merged = interpret("breadcrumbs_ties", BASE, experts(BASE, TAU), density=2 / 16, gamma=1 / 16)
    np.testing.assert_array_equal(merged, BASE + at(r0c0=-2, r1c0=3, r1c3=-2, r2c1=6))


@given(whole_deltas(2, limit=6), st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]), st.sampled_from([0.0, 0.05, 0.2, 1.0]))
def test_equals_sorting(tau, density, gamma):
    merged = interpret("breadcrumbs", BASE, experts(BASE, tau), density=density, gamma=gamma)
    kept = sum(np.where(kept_by_sorting(delta, density, gamma), delta, 0) for delta in tau)
    np.testing.assert_array_equal(merged, BASE + kept)


def test_rescale_restores_the_l1_norm():
    scale = statistics_of("breadcrumbs", BASE, experts(BASE, TAU), density=2 / 16, gamma=1 / 16, rescale="l1")["scale"]
    # L1 norms 11, 15 and 9 before; 3 + 2, 4 + 2 + 2 and 3 after.
    np.testing.assert_array_equal(scale, [11 / 5, 15 / 8, 3])


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
def test_density_one_keeps_everything(gamma):
    merged = interpret("breadcrumbs", BASE, experts(BASE, TAU), gamma=gamma)
    np.testing.assert_array_equal(merged, BASE + TAU.sum(0))


def test_on_sparse_changes_gamma_counts_all_entries_unless_told_otherwise():
    # 4 changes among 100: gamma 0.05 drops five largest, and with them every change.
    tau = np.zeros((1, 100))
    tau[0, :4] = 1, 2, 3, 4
    np.testing.assert_array_equal(interpret("breadcrumbs", np.zeros(100), tau, density=0.5, gamma=0.05), 0)
    # Of the changes alone: a quarter from the top, half kept.
    merged = interpret("breadcrumbs", np.zeros(100), tau, density=0.5, gamma=0.25, rank_nonzero=True)
    np.testing.assert_array_equal(merged[:4], [0, 2, 3, 0])
