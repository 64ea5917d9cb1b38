"""Task vectors by machine code: by hand, against NumPy's subtraction bit for bit, and what is refused."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlmerge.kernels import deltas
from rlmerge.kernels.deltas import Kind, decode_deltas
from rlmerge.kernels.dtypes import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, decode
from rlmerge.kernels.rounding import encode

SINGLE, DOUBLE = np.dtype(np.float32), np.dtype(np.float64)


def test_by_hand():
    """1.5 and 0.25 are 0x3FC0 and 0x3E80 in bfloat16."""
    base = np.uint16([0x3FC0, 0x3E80])
    found = decode_deltas(Kind(BFLOAT16, (BFLOAT16, FLOAT32), SINGLE), [base, base[::-1].copy(), np.float32([2, 0])])
    assert found is not None
    assert found[0].tolist() == [1.5, 0.25]
    assert found[1].tolist() == [[-1.25, 1.25], [0.5, -0.25]]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 70), st.sampled_from([BFLOAT16, FLOAT16, FLOAT32, FLOAT64]))
def test_equals_subtraction(seed, n, dtype):
    rng = np.random.default_rng(seed)
    real = DOUBLE if dtype is FLOAT64 else SINGLE
    stored = [encode(rng.standard_normal(n).astype(real), dtype, "nearest", None) for _ in range(4)]
    found = decode_deltas(Kind(dtype, (dtype,) * 3, real), stored)
    if found is None:
        pytest.skip("this processor cannot convert float16")
    base, *experts = [decode(x, dtype).astype(real) for x in stored]
    np.testing.assert_array_equal(found[0], base)
    np.testing.assert_array_equal(found[1], np.reshape([x - base for x in experts], (3, n)))


@pytest.mark.parametrize(
    ("zero", "same", "expected"),
    [
        (False, False, [np.nan, np.nan, 1, -np.inf]),
        (False, True, [0, np.nan, 1, -np.inf]),
        (True, False, [0, 0, 1, -2]),
    ],
)
def test_what_is_not_finite(zero, same, expected):
    base = np.float32([np.inf, np.nan, 1, np.inf if not zero else 2])
    other = np.float32([np.inf, 3 if not zero else np.inf, 2, 0])
    found = decode_deltas(Kind(FLOAT32, (FLOAT32,), SINGLE, zero, same), [base, other])
    assert found is not None
    np.testing.assert_array_equal(found[1][0], np.float32(expected))


def test_large_ranges_and_other_threads_have_arrays_of_their_own():
    kind, one = Kind(FLOAT32, (FLOAT32,), SINGLE), np.ones(8, np.float32)
    first = decode_deltas(kind, [one, 2 * one])
    large = np.zeros(deltas.KEPT, np.float32)
    decode_deltas(kind, [large, large])
    thread = threading.Thread(target=decode_deltas, args=(kind, [one, 5 * one]))
    thread.start()
    thread.join()
    assert first is not None
    assert first[1].tolist() == [[1.0] * 8]


@pytest.mark.parametrize(
    "inputs",
    [[np.ones(2, np.float32)], [np.ones(2, np.float32), np.ones(3, np.float32)], [np.ones(2), np.ones(2)]],
    ids=["one missing", "lengths", "types"],
)
def test_refuses_what_the_code_would_misread(inputs):
    with pytest.raises(ValueError, match="2 contiguous arrays"):
        decode_deltas(Kind(FLOAT32, (FLOAT32,), SINGLE), inputs)
