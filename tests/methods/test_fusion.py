"""Arcee Fusion: the divergence against exact rational-like arithmetic, and quartiles by sorting."""

from decimal import Decimal, getcontext

import numpy as np
import pytest

from rlmerge.methods.fusion import softmax_divergence
from support.examples import BASE
from support.interpret import interpret, statistics_of, warnings_of


def exact_divergence(weights, delta):
    """KL(softmax(W) ‖ softmax(W + Δ)) of one row in decimal arithmetic with 80 digits."""
    getcontext().prec = 80
    first = [Decimal(float(w)) for w in weights]
    second = [w + Decimal(float(d)) for w, d in zip(first, delta, strict=True)]
    mass, other = sum(x.exp() for x in first), sum(x.exp() for x in second)
    return float(sum(x.exp() / mass * ((x - mass.ln()) - (y - other.ln())) for x, y in zip(first, second, strict=True)))


def test_two_entries_by_hand():
    # q = (½, ½) and p = (¾, ¼): ½ log(½ / ¾) + ½ log(½ / ¼) = ½ log(4/3).
    found = softmax_divergence(np.zeros((1, 2)), np.array([[np.log(3.0), 0.0]]))
    np.testing.assert_allclose(found, [0.5 * np.log(4 / 3)], rtol=1e-15)


@pytest.mark.parametrize("size", [3.0, 0.1, 0.01, 1e-4, 1e-8, 1e-12])
def test_divergences_of_any_size_keep_their_digits(size):
    rng = np.random.default_rng(0)
    weights, delta = rng.standard_normal((2, 3, 20))
    found = softmax_divergence(weights, size * delta)
    expected = [exact_divergence(w, size * d) for w, d in zip(weights, delta, strict=True)]
    # The mean change is subtracted once: its rounding of 2^-53 is relative to the change itself.
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_a_row_moved_by_a_constant_has_no_divergence():
    np.testing.assert_allclose(softmax_divergence(BASE, np.full((4, 4), 0.25)), 0, atol=1e-30)


def importance(base, expert):
    """|Δ| · KL(expert ‖ base) of the row, by the textbook formula."""

    def softmax(x):
        return np.exp(x) / np.exp(x).sum(-1, keepdims=True)

    p, q = softmax(expert), softmax(base)
    return np.abs(expert - base) * (p * np.log(p / q)).sum(-1, keepdims=True)


@pytest.mark.parametrize("seed", range(3))
def test_changes_whose_importance_is_an_outlier_are_taken(seed):
    base, delta = np.random.default_rng(seed).standard_normal((2, 9, 13))
    expert = base + delta
    found = importance(base, expert)
    first, median, third = np.quantile(found, [0.25, 0.5, 0.75], method="lower")
    expected = np.where(found >= median + 1.5 * (third - first), expert, base)
    merged = interpret("arcee_fusion", base, [expert])
    np.testing.assert_array_equal(merged, base + np.where(expected != base, expert - base, 0))
    assert 0 < np.count_nonzero(merged != base) < merged.size / 4


def test_quartiles_of_a_ramp():
    # Two entries per row: KL is the same for both, so importance is |Δ| times the row's divergence.
    values = statistics_of("arcee_fusion", np.zeros((1, 5)), [np.array([[0.0, 1.0, 2.0, 3.0, 4.0]])])
    scale = values["divergence"][0, 0]
    np.testing.assert_allclose(values["quartiles"], [scale, 2 * scale, 3 * scale], rtol=1e-15)
    assert values["threshold"] == pytest.approx(5 * scale)


def test_sparse_changes_are_all_kept_and_that_is_said():
    expert = np.zeros((4, 8))
    expert[1, 2], expert[3, 3] = 0.5, -0.25
    np.testing.assert_array_equal(interpret("arcee_fusion", np.zeros((4, 8)), [expert]), expert)
    assert "keeps every change" in warnings_of("arcee_fusion", np.zeros((4, 8)), [expert])[0]
