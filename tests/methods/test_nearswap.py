"""NearSwap is a clipped step."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmerge import merge_state_dicts
from rlmerge.errors import RequestError
from support.examples import BASE, whole_deltas
from support.interpret import interpret


def test_small_differences_are_swapped_and_large_ones_step():
    merged = interpret("nearswap", [1.0, 1.0, 1.0, 1.0], [[1.5, 9.0, -9.0, 1.0]], t=2)
    np.testing.assert_array_equal(merged, [1.5, 3, -1, 1])


@given(whole_deltas(1, limit=9), st.floats(0.01, 12))
def test_equals_interpolation_with_weight_t_over_the_difference(tau, t):
    weight = np.clip(t / np.maximum(np.abs(tau[0]), 1e-6), 0, 1)
    merged = interpret("nearswap", BASE, BASE + tau, t=t)
    np.testing.assert_allclose(merged, BASE + weight * tau[0], rtol=0, atol=2.0**-48)


@given(whole_deltas(1))
def test_no_step_is_the_base_and_any_step_the_expert(tau):
    np.testing.assert_array_equal(interpret("nearswap", BASE, BASE + tau, t=0), BASE)
    np.testing.assert_array_equal(interpret("nearswap", BASE, BASE + tau, t=100), BASE + tau[0])


def test_the_step_must_be_given():
    model = {"w": np.ones(2, np.float32)}
    with pytest.raises(RequestError, match="needs parameter 't'"):
        merge_state_dicts(model, [model], "nearswap")
