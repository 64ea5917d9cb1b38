"""The counter hash against an integer implementation of its definition, and against what random numbers should be."""

import numpy as np
import pytest
from scipy import stats

from rlmerge.kernels.dtypes import FLOAT32, FLOAT64
from rlmerge.kernels.program import Operands, merge_kernel
from rlmerge.kernels.random import bits, stream_key, uniform
from rlmerge.kernels.values import Uniform

N = 1 << 18
FAR = (1 << 32) - 50
"""A start from which indices cross 2^32."""


def mix(word):
    word ^= word >> 16
    word = word * 0x21F0AAAD % 2**32
    word ^= word >> 15
    word = word * 0xD35A2D97 % 2**32
    return word ^ (word >> 15)


def by_hand(key, index):
    low, high = index % 2**32, index >> 32
    return mix(mix(low ^ key[0]) ^ ((high * 0x9E3779B1 + key[1]) % 2**32))


@pytest.mark.parametrize("start", [0, 12345, FAR, (5 << 32) + 7])
def test_bits_follow_the_definition(start):
    key = stream_key(0, "dare", "expert", "model.norm.weight")
    assert bits(key, start, 100).tolist() == [by_hand(key, start + i) for i in range(100)]


def test_the_bits_never_change_between_versions():
    assert stream_key(0, "x") == (1518074770, 2214630416)
    assert bits((1, 2), 0, 3).tolist() == [1991913125, 229111015, 3991167310]


def test_tiles_do_not_matter():
    key = stream_key("tiles")
    whole = bits(key, FAR, 200)
    pieces = [bits(key, FAR + a, b - a) for a, b in ((0, 1), (1, 17), (17, 120), (120, 200))]
    assert np.array_equal(np.concatenate(pieces), whole)


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64])
@pytest.mark.parametrize("start", [0, FAR, 1 << 40])
def test_kernels_draw_the_same_numbers(dtype, start):
    def second_stream(xp, base, weights, *, uniform):
        return uniform[1]

    kernel = merge_kernel(second_stream, Operands(None, (dtype,), False), {"uniform": Uniform(2)}, dtype)
    keys = [stream_key("a"), stream_key("b")]
    out = np.zeros(117, dtype.storage)
    kernel([np.zeros(117, dtype.storage)], start=start, out=out, keys=keys)
    assert np.array_equal(out, uniform(keys[1], start, 117, dtype.storage))
    assert np.array_equal(out, (bits(keys[1], start, 117) >> np.uint32(8)) / 2.0**24)


def test_uniform_is_below_one_and_hits_the_ends_of_its_grid():
    numbers = uniform(stream_key("range"), 0, N)
    assert numbers.dtype == np.float32
    # Each end's first 2^-14 of the range is hit 16 times on average; missing it has probability e^-16.
    assert 0 <= numbers.min() < 2.0**-14
    assert 1 - 2.0**-14 < numbers.max() < 1


@pytest.mark.parametrize("shift", [0, 8, 16, 24])
def test_every_byte_is_uniform(shift):
    counts = np.bincount(bits(stream_key("chi"), 0, N) >> np.uint32(shift) & np.uint32(255), minlength=256)
    # The seed is fixed, so this either always or never passes; a good hash fails for one key in 10^6.
    assert stats.chisquare(counts).pvalue > 1e-6


@pytest.mark.parametrize("distance", [1, 2, 16, 4096, 1 << 32])
def test_entries_at_any_distance_are_independent(distance):
    key = stream_key("serial")
    here, there = uniform(key, 0, N, np.float64), uniform(key, distance, N, np.float64)
    # The correlation of N independent pairs has standard deviation 1/sqrt(N).
    assert abs(np.corrcoef(here, there)[0, 1]) < 5 / np.sqrt(N)


def test_streams_are_independent_pair_by_pair():
    labels = [(0, "dare", k, "w") for k in range(4)] + [(1, "dare", 0, "w"), (0, "della", 0, "w"), (0, "dare", 0, "v")]
    rows = np.stack([uniform(stream_key(*label), 0, N, np.float64) for label in labels])
    correlations = np.corrcoef(rows)[np.triu_indices(len(labels), 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(N)
    both = (rows[0] < 0.5) & (rows[1] < 0.5)
    assert abs(both.mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / N)


def test_keys_that_differ_by_one_bit_give_unrelated_streams():
    one, other = bits((4, 9), 0, N), bits((5, 9), 0, N)
    flips = np.unpackbits((one ^ other).view(np.uint8)).mean()
    assert abs(flips - 0.5) < 5 * 0.5 / np.sqrt(32 * N)


def test_keys_separate_their_labels():
    keys = [stream_key(*labels) for labels in (("a", "bc"), ("ab", "c"), ("abc",), ("a", "b", "c"), ())]
    assert len(set(keys)) == len(keys)
    assert all(0 <= half < 2**32 for key in keys for half in key)
