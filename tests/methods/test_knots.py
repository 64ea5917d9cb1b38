"""KnOTS against a full decomposition of the experts side by side, by hand, and at its limits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.interpret import interpret


def low_rank(seed, count=3, outputs=9, inputs=7, rank=2):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, outputs, rank)) @ rng.standard_normal((count, rank, inputs))


def merged(tau, **options):
    return interpret("knots", np.zeros(tau.shape[1:]), tau, **options)


def reference(tau, density=1.0):
    """TIES on Σ Vᵀ_k of [τ_1 … τ_K] = U Σ [V_1 … V_K]ᵀ, whose rows may have either sign."""
    u, s, v = np.linalg.svd(np.hstack(tau), full_matrices=False)
    kept = s > 1e-5
    aligned = np.stack(np.split((s[kept, None] * v[kept]), len(tau), axis=1))
    for k, each in enumerate(aligned):
        size = np.sort(np.abs(each), axis=None)[::-1]
        threshold = size[int(density * each.size) - 1]
        aligned[k] = np.where(np.abs(each) >= threshold, each, 0)
    sign = np.where(aligned.sum(0) >= 0, 1, -1)
    chosen = np.where(aligned * sign > 0, aligned, 0)
    return u[:, kept] @ (chosen.sum(0) / np.maximum((chosen != 0).sum(0), 1))


@pytest.mark.parametrize("density", [1.0, 0.4])
@pytest.mark.parametrize("seed", range(3))
def test_equals_its_steps(seed, density):
    tau = low_rank(seed)
    np.testing.assert_allclose(merged(tau, density=density), reference(tau, density), rtol=0, atol=1e-9)


def test_by_hand():
    """Two experts along the first axis, where they agree in the first column and not in the second."""
    tau = np.array([[[4.0, 2], [0, 0]], [[2.0, -6], [0, 0]]])
    np.testing.assert_allclose(merged(tau), [[3, -6], [0, 0]], rtol=0, atol=1e-14)
    np.testing.assert_allclose(merged(tau, merge="mean"), [[3, -2], [0, 0]], rtol=0, atol=1e-14)


def test_the_sum_is_task_arithmetic():
    tau = low_rank(1)
    np.testing.assert_allclose(merged(tau, merge="sum"), tau.sum(0), rtol=0, atol=1e-10)


@given(st.integers(1, 4))
def test_equal_experts_come_back(count):
    tau = np.repeat(low_rank(2, count=1), count, axis=0)
    np.testing.assert_allclose(merged(tau), tau[0], rtol=0, atol=1e-9)


def test_order_others_cutoff_and_nothing():
    tau = low_rank(3)
    np.testing.assert_allclose(merged(tau[::-1]), merged(tau), rtol=0, atol=1e-9)
    np.testing.assert_allclose(merged(tau[:, 0]), tau[:, 0].mean(0), rtol=1e-14)
    assert not merged(1e-9 * tau).any()
    assert merged(1e-9 * tau, cutoff=0).any()
    assert not merged(np.zeros((2, 3, 4))).any()
    assert not merged(tau, density=0).any()
