"""Model Stock against the angle computed with NumPy, and its limits: equal, orthogonal and opposite experts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmerge import merge_state_dicts
from rlmerge.errors import RequestError
from rlmerge.methods.stock import interpolation, mean_cosine
from support.examples import BASE, experts, whole_deltas
from support.interpret import interpret, warnings_of


def reference(tau):
    """t · mean of [K, n] with t from the mean cosine over pairs."""
    count = len(tau)
    unit = tau / np.linalg.norm(tau, axis=1, keepdims=True)
    cosine = np.mean([unit[i] @ unit[j] for i in range(count) for j in range(i)])
    return count * cosine / (1 + (count - 1) * cosine) * tau.mean(0)


def test_sixty_degrees_by_hand():
    # (2, 0) and (1, √3): cosine 1/2, t = 2 · ½ / (1 + ½) = 2/3, mean (3/2, √3/2).
    merged = interpret("model_stock", np.zeros(2), [[2.0, 0.0], [1.0, np.sqrt(3)]])
    np.testing.assert_allclose(merged, [1, np.sqrt(3) / 3], rtol=1e-15)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_equals_the_formula(count):
    tau = np.random.default_rng(count).standard_normal((count, 30)) + 1
    merged = interpret("model_stock", np.zeros(30), tau)
    np.testing.assert_allclose(merged, reference(tau), rtol=1e-13, atol=1e-13)


def test_filters_have_their_own_angle():
    base, tau = np.random.default_rng(0).standard_normal((4, 6)), np.random.default_rng(1).random((3, 4, 6))
    merged = interpret("model_stock", base, base + tau, filter_wise=True)
    np.testing.assert_allclose(merged, base + [reference(tau[:, row]) for row in range(4)], rtol=1e-12)


@given(whole_deltas(1), st.integers(2, 4), st.sampled_from([1.0, 1e-4, 1e-9]))
def test_equal_experts_are_kept_however_small_their_change(tau, count, size):
    merged = interpret("model_stock", np.zeros((4, 4)), size * np.repeat(tau, count, axis=0))
    np.testing.assert_allclose(merged, size * tau[0], rtol=1e-13)


def test_mergekits_floor_shrinks_small_changes():
    # Norms of 1e-4 and a cosine of 1 divided by 1e-6 instead of 1e-8: cosine 0.01, t = 0.02 / 1.01.
    tau = np.array([[1e-4, 0.0]] * 2)
    np.testing.assert_allclose(interpret("model_stock", np.zeros(2), tau, compat=True), [2e-6 / 1.01, 0], rtol=1e-12)


def test_orthogonal_experts_cancel_to_the_base():
    np.testing.assert_array_equal(interpret("model_stock", [5.0, 5.0], [[6.0, 5.0], [5.0, 6.0]]), [5, 5])


def test_experts_that_point_apart_are_warned_of():
    assert "point apart" in warnings_of("model_stock", np.zeros(2), [[1.0, 0.0], [-1.0, 1.0]])[0]
    assert warnings_of("model_stock", np.zeros(2), [[1.0, 0.0], [1.0, 1.0]]) == []


def test_opposite_experts_do_not_divide_by_zero():
    np.testing.assert_array_equal(interpret("model_stock", np.ones(2), [[2.0, 1.0], [0.0, 1.0]]), 1)
    assert interpolation(np.array(-0.5), 3) == 0


def test_an_expert_without_a_change_counts_as_cosine_zero():
    gram = np.diag([4.0, 9.0, 0.0])
    gram[0, 1] = gram[1, 0] = 3.0
    assert mean_cosine(gram) == (3 / 6) / 3
    np.testing.assert_array_equal(interpret("model_stock", BASE, experts(BASE, np.zeros((2, 4, 4)))), BASE)


def test_one_expert_has_no_angle():
    with pytest.raises(RequestError, match="2"):
        merge_state_dicts({"w": np.zeros(2, np.float32)}, [{"w": np.ones(2, np.float32)}], "model_stock")
