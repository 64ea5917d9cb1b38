"""Ranges on NumPy: decoding with and without a base, rounding with accounts by hand, and sums of parts."""

import numpy as np
import pytest

from rlmerge.kernels.dtypes import BFLOAT16, FLOAT16, FLOAT32, FLOAT64
from rlmerge.kernels.program import Operands
from rlmerge.merging.backend import Numbers, Storing, together
from rlmerge.merging.on_numpy import Rounder, decode_tile
from support.models import stored

REAL = np.dtype(np.float32)


def words(values):
    return stored(values, "bfloat16").view(np.uint16)


def test_task_vectors_and_weights():
    arrays = [words([1.0, 2.0]), np.array([1.5, 2.0], np.float32), np.array([1.0, 1.0], np.float64)]
    experts = (FLOAT32, FLOAT64)
    deltas = decode_tile(arrays, Operands(BFLOAT16, experts, True), {}, False, REAL)
    np.testing.assert_array_equal(deltas.base, [1, 2])
    np.testing.assert_array_equal(deltas.stack, [[0.5, 0], [0, -1]])
    weights = decode_tile(arrays, Operands(BFLOAT16, experts, False), {}, False, REAL)
    np.testing.assert_array_equal(weights.stack, [[1.5, 2], [1, 1]])
    np.testing.assert_array_equal(weights.deltas, deltas.stack)
    alone = decode_tile(arrays[1:], Operands(None, experts, True), {}, False, REAL)
    assert alone.base is None
    assert alone.deltas is None
    np.testing.assert_array_equal(alone.stack, weights.stack)


def test_further_inputs_come_by_name():
    arrays = [np.zeros(2, np.float32)] * 2 + [np.full(2, k, np.float32) for k in range(3)]
    found = decode_tile(arrays, Operands(FLOAT32, (FLOAT32,), True), {"a": 1, "b": 2}, False, REAL)
    assert found.extras["a"].tolist() == [[0, 0]]
    assert found.extras["b"].tolist() == [[1, 1], [2, 2]]


@pytest.mark.parametrize("zero", [False, True])
def test_what_is_not_finite_is_noticed_and_may_count_as_zero(zero):
    arrays = [np.array([1.0, np.nan], np.float32), np.array([np.inf, 2.0], np.float32)]
    found = decode_tile(arrays, Operands(FLOAT32, (FLOAT32,), False), {}, zero, REAL)
    assert not found.finite
    np.testing.assert_array_equal(found.base, [1, 0 if zero else np.nan])
    np.testing.assert_array_equal(found.stack, [[0 if zero else np.inf, 2]])


def test_merged_numbers_are_rounded_and_accounted_for():
    # Steps of bfloat16 at 1 are 2^-7: the first change survives, half of the second is a tie that rounds back to even,
    # and the third coordinate, which nobody changed, keeps its bits.
    arrays = [words([1.0, 1.0, -0.0]), words([1.0 + 2**-6, 1.0 + 2**-7, -0.0])]
    piece = decode_tile(arrays, Operands(BFLOAT16, (BFLOAT16,), True), {}, False, REAL)
    buffer = np.zeros(3, np.uint16)
    merged = np.array([1.0 + 2**-7, 1.0 + 2**-8, 5.0], np.float32)
    found = Rounder(Storing(BFLOAT16, "nearest", True), (1, 2))(merged, piece, 0, buffer)
    np.testing.assert_array_equal(buffer, words([1.0 + 2**-7, 1.0, -0.0]))
    # Changed and survived; of the expert: changed, survived, unique, erased.
    assert found.counts.tolist() == [2, 1, 2, 1, 2, 1]
    assert not found.nonfinite_out


def test_overflow_of_the_output_type_is_noticed():
    piece = decode_tile([np.ones(1, np.float32)], Operands(None, (FLOAT32,), False), {}, False, REAL)
    found = Rounder(Storing(FLOAT16, "nearest", False), (1, 2))(
        np.array([1e6], np.float32), piece, 0, np.zeros(1, np.float16)
    )
    assert found.nonfinite_out
    assert found.counts.size == 0


def test_parts_add_up():
    first = Numbers(np.ones((2, 1)), np.array([1, 2]), nonfinite_in=True)
    second = Numbers(np.zeros((1, 1)), np.array([3, 4]), nonfinite_out=True)
    found = together([first, second])
    assert found.sums.tolist() == [[1], [1], [0]]
    assert found.counts.tolist() == [4, 6]
    assert (found.nonfinite_in, found.nonfinite_out) == (True, True)
