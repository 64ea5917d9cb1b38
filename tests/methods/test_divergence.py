"""Divergences of rows against arithmetic of fifty digits, and where plain float32 fails."""

from decimal import Decimal, getcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmerge.methods.divergence import half_variance, log_shift, log_total, row_divergence, row_values, softmax

getcontext().prec = 50


def exactly(reference, changed):
    """(KL(q‖p), ½ Var_q(Δ), log Σ e^W₁ − log Σ e^W₀) of two rows, in decimal arithmetic."""
    old, new = [Decimal(float(x)) for x in reference], [Decimal(float(x)) for x in changed]
    totals = [sum(x.exp() for x in row) for row in (old, new)]
    q = [x.exp() / totals[0] for x in old]
    shift = totals[1].ln() - totals[0].ln()
    delta = [y - x for x, y in zip(old, new, strict=True)]
    mean = sum(w * d for w, d in zip(q, delta, strict=True))
    variance = sum(w * (d - mean) ** 2 for w, d in zip(q, delta, strict=True))
    return float(shift - mean), float(variance / 2), float(shift)


def rows(seed, size, shape=(1, 200)):
    """A row of weights, and the same after a sparse update of about ``size``."""
    rng = np.random.default_rng(seed)
    reference = 0.05 * rng.standard_normal(shape)
    return reference, reference + size * rng.standard_normal(shape) * (rng.random(shape) < 0.2)


@pytest.mark.parametrize("size", [1e-7, 1e-5, 1e-2, 1.0])
def test_divergences_keep_their_digits_at_every_size(size):
    reference, changed = rows(0, size)
    exact, variance, shift = exactly(reference[0], changed[0])
    backward = exactly(changed[0], reference[0])[0]
    # Δ itself carries the rounding of W₁ - W₀ to 2^-53 of weights of 0.1: relative 1e-10 at the smallest size.
    for found, expected in (
        (row_divergence(reference, changed, "exact", "reverse"), exact),
        (row_divergence(reference, changed, "exact", "forward"), backward),
        (row_divergence(reference, changed, "variance", "reverse"), variance),
        (row_divergence(reference, changed, "variance", "forward"), variance),
        (log_shift(reference, changed), shift),
    ):
        np.testing.assert_allclose(found, [expected], rtol=1e-8)


def test_half_the_variance_is_the_divergence_of_small_changes():
    for size, order in ((1e-3, 1e-3), (1e-5, 1e-5)):
        reference, changed = rows(1, size)
        exact = row_divergence(reference, changed, "exact", "reverse")
        other = row_divergence(reference, changed, "exact", "forward")
        half = row_divergence(reference, changed, "variance", "reverse")
        np.testing.assert_allclose([half, other], [exact, exact], rtol=3 * order)  # what is left out is O(Δ)


@given(st.integers(-800, 800), st.integers(1, 50), st.sampled_from(["variance", "exact"]))
def test_a_row_that_moves_as_a_whole_has_no_divergence(shift, columns, divergence):
    # Multiples of 1/256 add up without rounding; only the mean of Δ rounds.
    reference = np.random.default_rng(columns).integers(-900, 900, (1, columns)) / 256
    assert row_divergence(reference, reference + shift / 256, divergence, "reverse") == 0


def test_plain_float32_picks_the_wrong_rows_and_a_variance_does_not():
    reference, changed = (x.astype(np.float32) for x in rows(2, 2e-4, (400, 512)))
    delta = changed.astype(np.float64) - reference

    def top(divergence):
        importance = np.abs(delta) * divergence[:, None]
        return importance >= np.quantile(importance, 0.95)

    def overlap(divergence):
        mask = top(divergence)
        return (mask & truth).sum() / (mask | truth).sum()

    truth = top(row_divergence(reference.astype(np.float64), changed.astype(np.float64), "exact", "reverse"))
    q, p = softmax(reference), softmax(changed)
    plain = np.abs((q * (np.log(q) - np.log(p))).sum(-1))
    assert overlap(plain) < 0.7
    assert half_variance(reference, changed - reference).dtype == np.float32
    assert overlap(half_variance(reference, changed - reference)) > 0.99


def test_values_of_rows_are_the_divergence_or_the_total_and_its_shift():
    reference, changed = rows(3, 0.1, (5, 7))
    assert row_values(reference, changed, "row", "exact", "forward").shape == (1, 5)
    total, shift = row_values(reference, changed, "element", "exact", "reverse")
    np.testing.assert_allclose(total, np.log(np.exp(reference).sum(-1)), rtol=1e-13)
    np.testing.assert_allclose(total + shift, log_total(changed), rtol=1e-13)
    (total, _) = row_values(reference, changed, "element", "exact", "forward")
    np.testing.assert_array_equal(total, log_total(changed))


def test_large_logits_do_not_overflow():
    reference = np.array([[1000.0, 0.0, -1000.0]])
    np.testing.assert_array_equal(softmax(reference), [[1, 0, 0]])
    assert log_total(reference) == 1000
