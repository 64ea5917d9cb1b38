"""Rounding against literal cases, exact rational arithmetic, ml_dtypes, and the kernels' own rounding."""

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rlmerge.kernels.dtypes import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, MERGEABLE, decode
from rlmerge.kernels.program import Operands, merge_kernel
from rlmerge.kernels.random import bits
from rlmerge.kernels.rounding import encode, to_float32_odd

from .tiles import awkward, same_stored, store

EVERY_WORD = np.arange(65536, dtype=np.uint16)
SIXTEEN = {BFLOAT16: ml_dtypes.bfloat16, FLOAT16: np.float16}
KEY = (7, 11)

# Among all words are signalling NaNs, which NumPy warns of when it widens them.
pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered in cast")


def words(dtype):
    """Every 16-bit word as storage of ``dtype``."""
    return EVERY_WORD if dtype is BFLOAT16 else EVERY_WORD.view(np.float16)


def by_kernel(values, dtype, rounding="nearest", start=0):
    """``values`` (float32 or float64) rounded by a compiled kernel with random key ``KEY``."""
    source = FLOAT64 if values.dtype == np.float64 else FLOAT32
    kernel = merge_kernel(first_expert, Operands(None, (source,), False), {}, dtype, rounding=rounding)
    out = np.zeros(len(values), dtype.storage)
    kernel([values], start=start, out=out, keys=[KEY] * kernel.streams)
    return out


def first_expert(xp, base, weights):
    return weights[0]


def exact_nearest(value, dtype):
    """``value`` rounded once, to nearest and ties to the even word, in rational arithmetic; for finite results."""
    down = int(encode(np.array([abs(value)], np.float64), dtype).view(np.uint16)[0])
    near = [w for w in (down - 1, down, down + 1) if w >= 0]
    real = {w: Fraction(float(decode(np.array([w], np.uint16).view(dtype.storage), dtype)[0])) for w in near}
    return min(near, key=lambda w: (abs(real[w] - Fraction(abs(value))), w % 2))


@pytest.mark.parametrize("dtype", SIXTEEN)
@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_every_16_bit_value_survives_the_way_there_and_back(dtype, real):
    stored = words(dtype)
    assert same_stored(encode(decode(stored, dtype).astype(real), dtype), stored, dtype)
    assert same_stored(by_kernel(decode(stored, dtype).astype(real), dtype), stored, dtype)


@pytest.mark.parametrize("dtype", SIXTEEN)
def test_float32_rounds_as_in_ml_dtypes_and_numpy(dtype):
    rng = np.random.default_rng(0)
    halves = decode(words(dtype), dtype).view(np.uint32)
    middle = np.concatenate([halves + np.uint32(step) for step in (0x0FFF, 0x1000, 0x1001, 0x7FFF, 0x8000, 0x8001)])
    anywhere = rng.integers(0, 1 << 32, 100_000, dtype=np.uint32)
    values = np.concatenate([middle, anywhere]).view(np.float32)
    with np.errstate(all="ignore"):
        expected = values.astype(SIXTEEN[dtype]).view(dtype.storage)
    assert same_stored(encode(values, dtype), expected, dtype)
    assert same_stored(by_kernel(values, dtype), expected, dtype)


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (1 + 2.0**-8, 0x3F80),  # a tie goes to the even word
        (1 + 2.0**-8 + 2.0**-40, 0x3F81),  # float32 would first round this to the tie
        (1 + 3 * 2.0**-8 - 2.0**-40, 0x3F81),  # and this up to the tie above
        (-1 - 2.0**-8 - 2.0**-40, 0xBF81),
        (2.0**-134 + 2.0**-180, 0x0001),  # just above half the smallest subnormal
        (2.0**-134, 0x0000),
        (1e-300, 0x0000),
        (-1e-300, 0x8000),
        (255.5 * 2.0**120, 0x7F80),  # half a step above the largest value
        (255.5 * 2.0**120 - 2.0**80, 0x7F7F),
        (1e300, 0x7F80),
        (-np.inf, 0xFF80),
    ],
)
def test_float64_rounds_to_bfloat16_once(value, word):
    values = np.array([value])
    assert encode(values, BFLOAT16)[0] == word
    assert by_kernel(values, BFLOAT16)[0] == word


@pytest.mark.parametrize("dtype", SIXTEEN)
@given(value=st.floats(-60000, 60000, allow_nan=False))
@example(1 + 2.0**-11 + 2.0**-40)
@example(2.0**-25 + 2.0**-70)
def test_float64_rounds_to_the_nearest_in_rational_arithmetic(dtype, value):
    assert int(encode(np.array([value]), dtype).view(np.uint16)[0]) & 0x7FFF == exact_nearest(value, dtype)


def test_float64_rounds_to_float16_as_in_numpy_and_in_the_kernel():
    rng = np.random.default_rng(1)
    near = decode(words(FLOAT16), FLOAT16).astype(np.float64) * (1 + 2.0**-11)  # near the ties
    values = np.concatenate([near, near * (1 + 2.0**-45), awkward(rng, 50_000, FLOAT64)])
    with np.errstate(all="ignore"):
        expected = values.astype(np.float16)
    assert same_stored(encode(values, FLOAT16), expected, FLOAT16)
    assert same_stored(by_kernel(values, FLOAT16), expected, FLOAT16)
    for dtype in MERGEABLE:
        assert same_stored(by_kernel(values, dtype), encode(values, dtype), dtype)


def test_rounding_to_odd_is_exact_or_odd_and_next_to_the_value():
    values = awkward(np.random.default_rng(2), 20_000, FLOAT64)
    values = values[np.abs(values) < 3e38]
    odd = to_float32_odd(values)
    assert np.all((odd == values) | (odd.view(np.uint32) & 1 == 1))
    below, above = (np.nextafter(odd, np.float32(end)).astype(np.float64) for end in (-np.inf, np.inf))
    assert np.all((below < values) & (values < above))


@pytest.mark.parametrize("dtype", SIXTEEN)
def test_nans_stay_nan_and_infinities_stay_infinite(dtype):
    nans = (np.array([0x7F800001, 0xFFFFFFFF, 0x7FC00000, 0x7F80FFFF], np.uint32)).view(np.float32)
    infinite = np.array([np.inf, -np.inf], np.float32)
    for rounding in ("nearest", "stochastic"):
        assert np.isnan(decode(encode(nans, dtype, rounding, bits(KEY, 0, 4)), dtype)).all()
        assert np.isnan(decode(by_kernel(nans, dtype, rounding), dtype)).all()
        assert decode(encode(infinite, dtype, rounding, bits(KEY, 0, 2)), dtype).tolist() == [np.inf, -np.inf]
        assert decode(by_kernel(infinite, dtype, rounding), dtype).tolist() == [np.inf, -np.inf]


@pytest.mark.parametrize("dtype", SIXTEEN)
@pytest.mark.parametrize("random", [0, 1, 0x80000000, 0xFFFFFFFF])
def test_stochastic_rounding_never_moves_what_is_exact(dtype, random):
    stored = words(dtype)
    for real in (np.float32, np.float64):
        values = decode(stored, dtype).astype(real)
        found = encode(values, dtype, "stochastic", np.full(65536, random, np.uint32))
        assert same_stored(found, stored, dtype)


@pytest.mark.parametrize("dtype", SIXTEEN)
def test_stochastic_rounding_in_kernels_never_moves_what_is_exact(dtype):
    lowest = 6007928
    assert bits(KEY, lowest, 1)[0] >> 8 == 0  # the draw that rounds up whatever has a remainder above zero
    stored = words(dtype)
    assert same_stored(by_kernel(decode(stored, dtype), dtype, "stochastic"), stored, dtype)
    for word in (0x0000, 0x8000, 0x0001, 0x03FF, 0x8400, 0x3C01):
        one = stored[word : word + 1]
        assert same_stored(by_kernel(decode(one, dtype), dtype, "stochastic", lowest), one, dtype)
    tiny = np.array([2.0**-26], np.float32)  # a quarter of float16's smallest step
    assert decode(by_kernel(tiny, FLOAT16, "stochastic", lowest), FLOAT16)[0] == 2.0**-24


def test_stochastic_rounding_goes_up_with_the_remainder():
    quarter = np.full(4, 1 + 2.0**-9, np.float32)  # a quarter of the way from 1 to the next bfloat16
    random = np.array([0, 0xBFFF0000, 0xC0000000, 0xFFFFFFFF], np.uint32)
    assert encode(quarter, BFLOAT16, "stochastic", random).tolist() == [0x3F80, 0x3F80, 0x3F81, 0x3F81]
    assert encode(-quarter, BFLOAT16, "stochastic", random).tolist() == [0xBF80, 0xBF80, 0xBF81, 0xBF81]


@pytest.mark.parametrize(
    ("dtype", "value"),
    [(BFLOAT16, 1 + 0.3 * 2**-7), (BFLOAT16, -0.1), (FLOAT16, 1 + 0.3 * 2**-10), (FLOAT16, -3.7 * 2**-24)],
)
@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_stochastic_rounding_is_unbiased(dtype, value, real):
    n = 1 << 16
    values = np.full(n, value, real)
    found = decode(encode(values, dtype, "stochastic", bits(KEY, 0, n)), dtype).astype(np.float64)
    low, high = found.min(), found.max()
    assert low < value < high
    step = high - low
    assert decode(encode(np.array([(low + high) / 2]), dtype), dtype)[0] in (low, high)  # neighbours
    p = (value - low) / step
    deviation = step * np.sqrt(p * (1 - p) / n)  # of the mean of n Bernoulli trials
    assert abs(found.mean() - value) < 5 * deviation


@pytest.mark.parametrize("dtype", SIXTEEN)
@pytest.mark.parametrize("source", [FLOAT32, FLOAT64])
def test_stochastic_rounding_has_the_same_bits_in_kernels(dtype, source):
    values = awkward(np.random.default_rng(3), 30_001, source)
    expected = encode(values, dtype, "stochastic", bits(KEY, 0, len(values)))
    assert same_stored(by_kernel(values, dtype, "stochastic"), expected, dtype)


def test_wide_types_cannot_be_rounded_stochastically():
    with pytest.raises(ValueError, match="float32"):
        encode(np.ones(1, np.float32), FLOAT32, "stochastic", np.zeros(1, np.uint32))


def test_float64_is_rounded_to_float32_by_numpy():
    assert encode(np.array([0.1, 1e300]), FLOAT32).tolist() == [float(np.float32(0.1)), np.inf]
    assert store([0.1], FLOAT64).tolist() == [0.1]
