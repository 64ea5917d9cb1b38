"""Codes: what they stand for, and how they are packed, against a loop in Python."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmerge.checkpoint import ArraySource
from rlmerge.checkpoint.formats.quantised_codes import ByteCodes, Floats, Fp4Codes, Integers, WordCodes
from rlmerge.kernels.dtypes import BY_NAME
from rlmerge.kernels.float8 import E2M1, E4M3, E5M2

NOTHING = ArraySource("w", BY_NAME["uint8"], np.empty(0, np.uint8), "file")
BYTES = ArraySource("w", BY_NAME["int8"], np.empty(0, np.int8), "file")


def test_integers_of_four_and_eight_bits():
    assert Integers(4, raised=True).values.tolist() == list(range(-8, 8))
    assert Integers(4, raised=False).values.tolist() == [*range(8), *range(-8, 0)]
    assert Integers(8, raised=False).values.tolist() == [*range(128), *range(-128, 0)]
    assert (Integers(4, raised=True).limit, Integers(8, raised=False).limit) == (7.5, 127.5)


@pytest.mark.parametrize("raised", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_the_nearest_integer_ties_to_even(bits, raised):
    kind = Integers(bits, raised)
    numbers = np.array([0.5, 1.5, -0.5, -1.5, 2.49, -2.51, 1e9, -1e9], np.float32)
    top = (1 << (bits - 1)) - 1
    assert kind.values[kind.encode(numbers)].tolist() == [0, 2, 0, -2, 2, -3, top, -top - 1]
    assert kind.encode(kind.values).tolist() == list(range(1 << bits))


@pytest.mark.parametrize(("kind", "limit", "end"), [(E4M3, 448, 464), (E5M2, 57344, 61440), (E2M1, 6, 7)])
def test_the_ends_of_floats(kind, limit, end):
    floats = Floats(kind)
    assert (floats.limit, floats.ends) == (limit, (-end, end))


def test_infinity_is_no_largest_number():
    assert np.isnan(E4M3.values[Floats(E4M3).encode(np.array([np.inf, -np.inf, np.nan], np.float32))]).all()
    with pytest.raises(ValueError, match="no code for a number that is not finite"):
        Fp4Codes(NOTHING, 1, 2).nearest(np.array([np.inf], np.float32))


@given(st.integers(1, 4), st.integers(1, 40), st.sampled_from([4, 8]), st.data())
def test_words_hold_codes_from_their_low_end(rows, columns, bits, data):
    codes = np.random.default_rng(columns).integers(0, 1 << bits, (rows, columns), dtype=np.uint8)
    packing = WordCodes(NOTHING, rows, columns, Integers(bits, raised=True), bits)
    stored = packing.pack(codes)
    each = 32 // bits
    assert stored.shape == (rows, -(-columns // each)) and stored.dtype == np.int32
    for row in range(rows):
        for word in range(stored.shape[1]):
            meant = sum(int(code) << (bits * i) for i, code in enumerate(codes[row, word * each : (word + 1) * each]))
            assert int(stored[row, word]) & 0xFFFFFFFF == meant
    first = data.draw(st.integers(0, columns))
    last = data.draw(st.integers(first, columns))
    np.testing.assert_array_equal(packing.unpack(stored, first, last), codes[:, first:last])


@given(st.integers(1, 4), st.integers(1, 20), st.data())
def test_bytes_hold_two_codes_the_low_one_first(rows, pairs, data):
    codes = np.random.default_rng(pairs).integers(0, 16, (rows, 2 * pairs), dtype=np.uint8)
    packing = Fp4Codes(NOTHING, rows, 2 * pairs)
    stored = packing.pack(codes)
    assert stored.tolist() == (codes[:, ::2] + 16 * codes[:, 1::2].astype(int)).tolist()
    first = data.draw(st.integers(0, 2 * pairs))
    last = data.draw(st.integers(first, 2 * pairs))
    np.testing.assert_array_equal(packing.unpack(stored, first, last), codes[:, first:last])


def test_bytes_of_signed_storage():
    packing = ByteCodes(BYTES, 1, 3, Integers(8, raised=False))
    stored = packing.pack(packing.nearest(np.array([[-1, 5, -128]], np.float32)))
    assert (stored.dtype, stored.tolist()) == (np.int8, [[-1, 5, -128]])
    assert packing.kind.values[packing.unpack(stored, 0, 3)].tolist() == [[-1, 5, -128]]
