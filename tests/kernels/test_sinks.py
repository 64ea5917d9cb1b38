"""What kernels write, account for and count, against NumPy."""

import dataclasses

import numpy as np
import pytest

from rlmerge.kernels import compiler, jit, program
from rlmerge.kernels.account import account
from rlmerge.kernels.dtypes import BFLOAT16, FLOAT32, FLOAT64, MERGEABLE, decode
from rlmerge.kernels.histogram import BINS
from rlmerge.kernels.jit import ACCOUNT_BLOCK, Selection
from rlmerge.kernels.program import Operands, merge_kernel, reduce_kernel
from rlmerge.kernels.random import bits

from .tiles import awkward, expert_of, merged_on_numpy, same_stored

KEY = (3, 8)


def plain_sum(xp, base, tau):
    return base + xp.sum(tau)


def grown(xp, base, tau):
    """A formula that moves coordinates no expert changed."""
    return base * 1.5 + xp.sum(tau)


def tile(n, dtype, experts, special):
    rng = np.random.default_rng(n)
    base = awkward(rng, n, dtype, special)
    return [base, *(expert_of(rng, base, dtype) for _ in range(experts))]


@pytest.mark.parametrize("out", MERGEABLE)
@pytest.mark.parametrize("dtype", MERGEABLE)
@pytest.mark.parametrize("experts", [1, 2, 3])
def test_the_kernel_accounts_as_numpy_does(dtype, out, experts):
    n = 2 * ACCOUNT_BLOCK + 77
    arrays = tile(n, dtype, experts, special=False)
    layout = Operands(dtype, (dtype,) * experts, True)
    stored = np.zeros(n, out.storage)
    found = merge_kernel(plain_sum, layout, {}, out)(arrays, out=stored, block=ACCOUNT_BLOCK)
    expected, merged, base, deltas = merged_on_numpy(plain_sum, layout, arrays, {}, out)
    assert same_stored(stored, expected, out)
    counts, sums = account(base, deltas, merged, expected, out)
    assert found.counts.tolist() == counts.tolist()
    # |term| sums bound the rounding of a lane: 2^10 additions and a product in float32, or as many in float64.
    moved = np.abs(decode(expected, out).astype(np.float64) - base) + np.abs(merged - base)
    scale = np.array([[(moved * abs(delta)).sum() + (delta**2).sum()] * 5 for delta in deltas]).reshape(-1)
    epsilon = 2.0**-13 if layout.real == np.float32 else 2.0**-42
    assert np.all(np.abs(found.sums.sum(axis=0) - sums) <= epsilon * scale)
    assert np.all(sums[4::5] > 0)


@pytest.mark.parametrize("keeps_nonfinite", [False, True])
@pytest.mark.parametrize("dtype", [BFLOAT16, FLOAT32, FLOAT64])
def test_sums_have_the_same_bits_whatever_a_processor_masks_lanes_with(monkeypatch, dtype, keeps_nonfinite):
    arrays = tile(ACCOUNT_BLOCK + 77, dtype, 3, special=keeps_nonfinite)
    layout = Operands(dtype, (dtype,) * 3, True, same_is_zero=keeps_nonfinite)
    host, found = compiler.find_host(), []
    for packs in (512, 256, 0):
        monkeypatch.setattr(program, "_kernels", {})
        monkeypatch.setattr(jit, "find_host", lambda packs=packs: dataclasses.replace(host, packs=packs))
        stored = np.zeros(len(arrays[0]), dtype.storage)
        kernel = merge_kernel(plain_sum, layout, {}, dtype)
        assert kernel.program.sums_tell is not keeps_nonfinite
        found.append((kernel(arrays, out=stored, block=ACCOUNT_BLOCK), stored.tobytes()))
    (first, written), *others = found
    assert np.isfinite(first.sums).all() is np.bool_(not keeps_nonfinite)
    for other, stored in others:
        assert stored == written
        np.testing.assert_array_equal(other.sums, first.sums)
        assert other.counts.tolist() == first.counts.tolist()


def test_counts_of_awkward_tiles_are_exact_too():
    arrays = tile(5000, BFLOAT16, 3, special=True)
    layout = Operands(BFLOAT16, (BFLOAT16,) * 3, True)
    stored = np.zeros(5000, np.uint16)
    found = merge_kernel(plain_sum, layout, {}, BFLOAT16)(arrays, out=stored)
    expected, merged, base, deltas = merged_on_numpy(plain_sum, layout, arrays, {}, BFLOAT16)
    with np.errstate(invalid="ignore", over="ignore"):
        counts, _ = account(base, deltas, merged, expected, BFLOAT16)
    assert found.counts.tolist() == counts.tolist()
    assert counts[0] > counts[1] > 0


@pytest.mark.parametrize("dtype", MERGEABLE)
def test_coordinates_no_expert_changed_keep_the_bits_of_the_base(dtype):
    arrays = tile(999, dtype, 2, special=False)
    arrays[0][:4] = decode(np.array([0x8000, 0x3380, 0x4700, 0x0000], np.uint16), BFLOAT16).astype(dtype.storage)
    arrays[1][:4] = arrays[2][:4] = arrays[0][:4]
    layout = Operands(dtype, (dtype,) * 2, True)
    unchanged = (arrays[0] == arrays[1]) & (arrays[0] == arrays[2])
    assert 100 < unchanged.sum() < 900
    for keeps in (True, False):
        out = np.zeros(999, dtype.storage)
        merge_kernel(grown, layout, {}, dtype, keeps_base=keeps)(arrays, out=out)
        expected, *_ = merged_on_numpy(grown, layout, arrays, {}, dtype, keeps_base=keeps)
        assert same_stored(out, expected, dtype)
        kept = out[unchanged].tobytes() == arrays[0][unchanged].tobytes()
        assert kept is keeps


@pytest.mark.parametrize("source", [FLOAT32, FLOAT64])
def test_stochastic_rounding_uses_the_index_in_the_tensor(source):
    arrays, start = tile(300, source, 1, special=True), (1 << 32) - 100
    layout = Operands(source, (source,), True)
    out = np.zeros(300, np.uint16)
    merge_kernel(plain_sum, layout, {}, BFLOAT16, rounding="stochastic")(arrays, out=out, start=start, keys=[KEY])
    expected, *_ = merged_on_numpy(
        plain_sum, layout, arrays, {}, BFLOAT16, rounding="stochastic", bits=bits(KEY, start, 300)
    )
    assert same_stored(out, expected, BFLOAT16)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("position", [0, 15, 16, 40])
@pytest.mark.parametrize("dtype", MERGEABLE)
def test_one_nonfinite_input_anywhere_is_noticed(dtype, position, bad):
    kernel = merge_kernel(plain_sum, Operands(dtype, (dtype,), True), {}, dtype)
    clean = [np.zeros(41, dtype.storage) for _ in range(2)]
    out = np.zeros(41, dtype.storage)
    flags = kernel(clean, out=out)
    assert (flags.nonfinite_in, flags.nonfinite_out) == (False, False)
    clean[1][position] = (np.float32(bad).view(np.uint32) >> 16) if dtype is BFLOAT16 else bad
    flags = kernel(clean, out=out)
    assert (flags.nonfinite_in, flags.nonfinite_out) == (True, True)


@pytest.mark.parametrize(("out", "value"), [(BFLOAT16, 3.4e38), (MERGEABLE[1], 65520.0), (FLOAT32, 1e39)])
def test_overflow_in_rounding_is_noticed(out, value):
    source = FLOAT64 if out is FLOAT32 else FLOAT32
    values = np.array([value], source.storage)
    stored = np.zeros(1, out.storage)
    kernel = merge_kernel(lambda xp, base, weights: weights[0], Operands(None, (source,), False), {}, out)
    flags = kernel([values], out=stored)
    assert (flags.nonfinite_in, flags.nonfinite_out) == (False, True)


@pytest.mark.parametrize("n", [1, 15, 16, 17, 1000])
def test_histograms_count_leading_bits_and_list_words_with_low_bits(n):
    rng = np.random.default_rng(n)
    values = [awkward(rng, n, dtype).astype(np.float32) for dtype in (FLOAT32, FLOAT32)]
    values[0] = decode((values[0].view(np.uint32) >> 16).astype(np.uint16), BFLOAT16)  # no low bits
    kernel = reduce_kernel(lambda xp, b, w: xp.abs(w), Operands(None, (FLOAT32,) * 2, False), {}, "kth")
    selection = Selection(
        shift=15, bin_mask=0xFFFF, low_mask=0x7FFF, windows=((1, 1 << 31),) * 2,
        histograms=np.zeros((2, BINS), np.int64), side=np.zeros((2, 600), np.uint32), side_counts=np.zeros(2, np.int64),
    )  # fmt: skip
    kernel(values, selection=selection)
    for k, row in enumerate(values):
        words = row.view(np.uint32) & np.uint32(0x7FFFFFFF)
        words = words[words != 0]
        assert np.array_equal(selection.histograms[k], np.bincount(words >> 15, minlength=BINS))
        listed = words[words & 0x7FFF != 0]
        assert selection.side_counts[k] == len(listed)
        assert np.array_equal(selection.side[k][: len(listed)], listed[:600])
    assert selection.side_counts[0] == 0
    assert n < 1000 or selection.side_counts[1] > 600  # the list is full; counting went on
