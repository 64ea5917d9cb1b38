"""Averages and sums of task vectors against arithmetic by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmerge import merge_state_dicts
from rlmerge.errors import RequestError
from support.examples import BASE, TAU, at, experts, whole_deltas
from support.interpret import interpret

# Column by column of TAU: 4 − 2, 5, 3 + 1, 6, −1 − 2, 2 + 4 − 3, 1 − 1.
SUMS = at(r0c0=2, r0c2=5, r1c0=4, r1c1=6, r1c3=-3, r2c1=3)


def test_task_arithmetic_by_hand():
    np.testing.assert_array_equal(interpret("task_arithmetic", BASE, experts(BASE, TAU)), BASE + SUMS)


def test_task_arithmetic_normalises_before_lambda():
    # Weights 1, 1 and 2 add up to 4: at (2, 1) λ·(2 + 4 − 2·3)/4 = 0, at (1, 1) 2·(2·6)/4 = 6.
    merged = interpret("task_arithmetic", BASE, experts(BASE, TAU), weight=[1, 1, 2], lam=2.0, normalize=True)
    assert merged[2, 1] == BASE[2, 1]
    assert merged[1, 1] == BASE[1, 1] + 6


def test_linear_by_hand():
    merged = interpret("linear", None, [BASE, BASE + 4 * at(r0c0=1)], weight=[3, 1])
    np.testing.assert_array_equal(merged, BASE + at(r0c0=1))


def test_linear_without_normalize_is_the_weighted_sum():
    merged = interpret("linear", None, [BASE, 2 * BASE], weight=[0.5, 0.25], normalize=False)
    np.testing.assert_array_equal(merged, BASE)


@given(whole_deltas(), st.data())
def test_linear_with_the_base_as_reference_is_normalised_task_arithmetic(tau, data):
    weight = data.draw(st.lists(st.sampled_from([0.5, 1.0, 2.0]), min_size=len(tau), max_size=len(tau)))
    average = interpret("linear", BASE, experts(BASE, tau), weight=weight)
    arithmetic = interpret("task_arithmetic", BASE, experts(BASE, tau), weight=weight, normalize=True)
    # Two roundings of numbers below 32: a few units of 2^-49.
    np.testing.assert_allclose(average, arithmetic, rtol=0, atol=2.0**-46)


@pytest.mark.parametrize("method", ["linear", "task_arithmetic"])
@given(tau=whole_deltas(3), order=st.permutations(range(3)))
def test_the_order_of_experts_does_not_matter(method, tau, order):
    weight = np.array([1.0, 2.0, 4.0])
    merged = interpret(method, BASE, experts(BASE, tau), weight=weight)
    order = list(order)
    np.testing.assert_array_equal(interpret(method, BASE, experts(BASE, tau[order]), weight=weight[order]), merged)


@given(whole_deltas(1), st.integers(1, 4))
def test_the_average_of_equal_experts_is_the_expert(tau, count):
    merged = interpret("linear", BASE, experts(BASE, np.repeat(tau, count, axis=0)))
    np.testing.assert_array_equal(merged, BASE + tau[0])


@pytest.mark.parametrize("method", ["linear", "task_arithmetic", "dare_linear"])
def test_weights_that_cancel_are_refused_where_they_would_divide(method):
    base = {"w": np.zeros(2, np.float32)}
    with pytest.raises(RequestError, match="add up to 0"):
        merge_state_dicts(base, [base, base], method, weight=[1, -1], normalize=True)


def test_weights_that_cancel_are_fine_as_a_sum():
    base = {"w": np.zeros(1, np.float32)}
    found = merge_state_dicts(base, [{"w": np.ones(1, np.float32)}] * 2, "task_arithmetic", weight=[1, -1])
    assert found["w"] == [0]
