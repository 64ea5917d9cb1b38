"""Shares of measured amounts, from nothing to the ends of float32."""

import numpy as np
import pytest

from rlmerge.kernels.namespace import NumpyNamespace
from rlmerge.methods.measured import measured_sum, no_sensitivity, shares


@pytest.mark.parametrize(
    ("amounts", "otherwise", "expected"),
    [
        ([1, 3], [1, 1], [0.25, 0.75]),
        ([0, 5], [1, 1], [0, 1]),
        ([0, 0], [1, 3], [0.25, 0.75]),
        ([0, 0], [0, 0], [0, 0]),
        ([1e-44, 3e-44], [1, 1], [0.25, 0.75]),
        ([2e38, 2e38], [1, 1], [0.5, 0.5]),
    ],
)
def test_shares(amounts, otherwise, expected):
    amount, rest = (np.array(x, np.float32)[:, None] for x in (amounts, otherwise))
    found = shares(NumpyNamespace(np.float32), amount, rest)
    # Subnormal amounts are multiples of 1.4e-45: 7 and 21 of them.
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-6)


def test_totals_are_of_what_was_measured():
    stack = np.ones((2, 3))
    measured = np.full((2, 3), 0.5)
    np.testing.assert_array_equal(measured_sum(None, None, stack, sensitivity=measured), measured)
    np.testing.assert_array_equal(measured_sum(None, None, stack, sensitivity=None), 0)
    assert no_sensitivity({"sensitivity": measured, "experts": 2.0}) is None
    np.testing.assert_array_equal(no_sensitivity({"sensitivity": None, "experts": 2.0}), [0, 0])
