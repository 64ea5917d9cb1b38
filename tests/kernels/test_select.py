"""Exact ranks by streamed histograms against sorting."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlmerge.kernels import compiler, jit, program
from rlmerge.kernels.dtypes import BFLOAT16, FLOAT16, FLOAT32, FLOAT64
from rlmerge.kernels.program import Operands, reduce_kernel
from rlmerge.kernels.select import SAMPLE, SIDE_CAPACITY, SIDE_TOTAL, Selector

from .tiles import awkward, expert_of, on_numpy


def magnitude(xp, base, tau):
    return xp.abs(tau)


def select(layout, tiles, ranks, order=None):
    """Exact ranks over ``tiles`` (each a list of storage arrays) and the number of passes it took."""
    kernel = reduce_kernel(magnitude, layout, {}, "kth")
    selector = Selector(layout.real, len(layout.experts))
    for passes in range(1, 6):
        tallies = []
        for arrays in tiles:
            selection = selector.selection()
            found = kernel(arrays, selection=selection)
            tallies.append(selector.collect(selection, found.counts))
        for tally in [tallies[i] for i in order] if order else tallies:
            selector.add(tally)
        if selector.advance(np.asarray(ranks)):
            return selector, passes
    raise AssertionError("a selection takes five passes at most")


def by_sorting(rows, ranks):
    """The definition: infinity for rank 0, 0 beyond the number of non-zero entries, else the r-th largest."""
    found = []
    for row, rank in zip(rows, ranks, strict=True):
        nonzero = np.count_nonzero(row)
        found.append(np.inf if rank <= 0 else 0.0 if rank > nonzero else float(np.sort(row)[::-1][rank - 1]))
    return found


def check(layout, tiles, ranks, order=None):
    rows = [on_numpy(magnitude, layout, arrays, {})[0] for arrays in tiles]
    rows = np.concatenate(rows, axis=1)
    selector, passes = select(layout, tiles, ranks, order)
    assert selector.count_nonzero().tolist() == np.count_nonzero(rows, axis=1).tolist()
    assert selector.result.tolist() == by_sorting(rows, ranks)
    return passes


def plain(*rows, dtype=FLOAT32):
    """A layout without base and one tile of it that holds ``rows``."""
    return Operands(None, (dtype,) * len(rows), False), [[np.asarray(row, dtype.storage) for row in rows]]


@pytest.mark.parametrize("dtype", [BFLOAT16, FLOAT16, FLOAT32, FLOAT64])
def test_ranks_of_deltas_of_every_type(dtype):
    rng, n, experts = np.random.default_rng(0), 3000, 2
    layout = Operands(dtype, (dtype,) * experts, True)
    tiles = []
    for _ in range(3):
        base = awkward(rng, n, dtype, special=False)
        tiles.append([base, *(expert_of(rng, base, dtype) for _ in range(experts))])
    for ranks in ([1, 2], [17, 900], [2500, 4000], [0, 9000]):
        check(layout, tiles, ranks)


@pytest.mark.parametrize("packs", [256, 0])
@pytest.mark.parametrize("dtype", [BFLOAT16, FLOAT64])
def test_a_processor_that_packs_fewer_lanes(monkeypatch, dtype, packs):
    """Tiles end in the middle of a vector, and hold more than the buffer of words does."""
    host = compiler.find_host()
    if packs > host.packs:
        pytest.skip("no such vectors here")
    monkeypatch.setattr(program, "_kernels", {})
    monkeypatch.setattr(jit, "find_host", lambda: dataclasses.replace(host, packs=packs))
    test_ranks_of_deltas_of_every_type(dtype)


def test_a_literal_example():
    layout, tiles = plain([3, -1, 0, 2, -2, 0.5])
    results = [select(layout, tiles, [rank])[0].result[0] for rank in range(8)]
    assert results == [np.inf, 3, 2, 2, 1, 0.5, 0, 0]


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64])
def test_degenerate_rows(dtype):
    n = 100
    equal, zeros, signed = np.full(n, 0.1), np.zeros(n), -np.zeros(n)
    tiny = np.full(n, np.finfo(dtype.storage).smallest_subnormal)
    huge = np.full(n, np.finfo(dtype.storage).max)
    for ranks in ([5] * 5, [99] * 5, [100] * 5, [101] * 5, [0] * 5, [-3] * 5, [5, 0, 1, 100, 99]):
        check(*plain(equal, zeros, signed, tiny, huge, dtype=dtype), ranks)


@given(
    rows=st.lists(
        st.lists(st.floats(-10, 10, width=32) | st.sampled_from([0.0, 1.0, 1 + 2.0**-23]), min_size=30, max_size=30),
        min_size=1,
        max_size=3,
    ),
    data=st.data(),
)
@settings(max_examples=40, deadline=None)
def test_any_rows_and_ranks(rows, data):
    ranks = [data.draw(st.integers(0, 32)) for _ in rows]
    for dtype in (FLOAT32, FLOAT64):
        check(*plain(*rows, dtype=dtype), ranks)


def test_bfloat16_deltas_need_one_pass():
    rng = np.random.default_rng(1)
    base = awkward(rng, 20_000, BFLOAT16, special=False)
    expert = base + rng.integers(0, 3, len(base), dtype=np.uint16)
    assert check(Operands(BFLOAT16, (BFLOAT16,), True), [[base, expert]], [5000]) == 1


def test_float64_takes_four_passes_at_most():
    rows = np.random.default_rng(2).standard_normal((2, 2000)) * 1e-3 + 1
    assert check(*plain(*rows, dtype=FLOAT64), [3, 1500]) == 4


def test_a_full_side_list_costs_a_second_pass_and_stays_exact():
    rng = np.random.default_rng(3)
    full = rng.standard_normal(SIDE_CAPACITY + 4096).astype(np.float32)
    sparse = np.where(np.arange(len(full)) % 50 == 0, full, 1.0).astype(np.float32)
    layout, tiles = plain(full, sparse)
    listed = Selector(np.dtype(np.float32), 2)
    selection = listed.selection()
    found = reduce_kernel(magnitude, layout, {}, "kth")(tiles[0], selection=selection)
    overflown, kept = listed.collect(selection, found.counts).side
    assert overflown is None
    assert kept is not None
    for ranks in ([1, 1], [20_000, 600], [60_000, 5], [len(full) - 1, len(full) - 1]):
        assert check(layout, tiles, ranks) == 2


def test_too_many_side_entries_over_all_tiles_cost_a_second_pass_too():
    rng, each = np.random.default_rng(4), 60_000
    tiles = [[rng.standard_normal(each).astype(np.float32)] for _ in range(SIDE_TOTAL // each + 2)]
    layout = Operands(None, (FLOAT32,), False)
    assert check(layout, tiles, [123_456]) == 2
    assert check(layout, tiles[:3], [54_321]) == 1


def test_tallies_merge_in_any_order():
    rng = np.random.default_rng(5)
    tiles = [[rng.standard_normal(n).astype(np.float32)] for n in (10, 300, SIDE_CAPACITY + 2000)]
    layout = Operands(None, (FLOAT32,), False)
    for order in itertools.permutations(range(3)):
        check(layout, tiles, [5000], order)


def test_infinities_rank_above_all_numbers():
    check(*plain([1, np.inf, -np.inf, 2, 0]), [2])
    check(*plain([1, np.inf, -np.inf, 2, 0]), [3])


def test_nonzeros_may_be_counted_before_ranks_are_known():
    layout, tiles = plain([3, -1, 0, 2, -2, 0.5])
    selector = Selector(layout.real, 1)
    selection = selector.selection()
    found = reduce_kernel(magnitude, layout, {}, "kth")(tiles[0], selection=selection)
    selector.add(selector.collect(selection, found.counts))
    assert selector.count_nonzero().tolist() == [5]
    assert selector.advance(np.array([2]))
    assert selector.result.tolist() == [2]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_are_tallied_without_a_kernel_to_the_same_ranks_as_sorting(dtype):
    rng = np.random.default_rng(5)
    rows = [np.abs(rng.standard_normal(5000)).astype(dtype) * (rng.random(5000) < 0.4) for _ in range(2)]
    selector = Selector(np.dtype(dtype), 2)
    ranks = np.array([17, 900])
    while True:
        selector.add(selector.tally_of([row[:3000] for row in rows]))
        selector.add(selector.tally_of([row[3000:] for row in rows]))
        if selector.advance(ranks):
            break
    expected = [np.sort(row)[::-1][rank - 1] for row, rank in zip(rows, ranks, strict=True)]
    assert selector.result.tolist() == [float(x) for x in expected]


def sampled(selector, row):
    """What a kernel counts of a sample."""
    selection = selector.sampling()
    reduce_kernel(magnitude, *_of_one)([row.astype(np.float32)], selection=selection)
    return selection


_of_one = (Operands(None, (FLOAT32,), False), {}, "kth")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["alike", "larger", "smaller", "zero"]), st.integers(1, 5000))
def test_any_sample_leads_to_the_exact_ranks(seed, kind, rank):
    """One like the rest leads there in a pass; a misleading one costs another."""
    rng = np.random.default_rng(seed)
    row = np.where(rng.random(4000) < 0.7, rng.standard_normal(4000), 0).astype(np.float32)
    row = (row.view(np.uint32) & 0xFFFF0000).view(np.float32)
    scale = {"alike": 1, "larger": 64, "smaller": 1 / 64, "zero": 0}[kind]
    selector = Selector(np.dtype(np.float32), 1)
    sample = sampled(selector, np.resize(row, SAMPLE) * scale)
    selector.expect(sample, [np.array([rank])], len(row))
    passes, exact = 0, False
    while not exact:
        passes += 1
        selection = selector.selection(len(row))
        found = reduce_kernel(magnitude, *_of_one)([row], selection=selection)
        selector.add(selector.collect(selection, found.counts))
        exact = selector.advance(np.array([rank]))
    assert passes == 1 or kind != "alike"
    assert passes <= 2
    assert selector.result.tolist() == by_sorting([np.abs(row)], [rank])
    assert selector.count_nonzero().tolist() == [np.count_nonzero(row)]


def test_a_window_by_hand():
    """Of 65536 entries 1 to 8 in equal shares, the 30000th largest is a 5; a sample shows it to be near 5, off by less
    than a hundredth of all. The leading 12 bits of a word are sign-free exponent and four bits behind the point."""
    row = np.resize(np.arange(1, 9, dtype=np.float32), SAMPLE)
    selector = Selector(np.dtype(np.float32), 1)
    selector.expect(sampled(selector, row), [np.array([30000])], SAMPLE)
    bits = np.array([5, 5.25], np.float32).view(np.uint32)
    assert selector.selection(0).windows == ((int(bits[0]), int(bits[1])),)
    # At the border between 5 and 4, which is at rank 32768, both are looked at.
    selector.expect(sampled(selector, row), [np.array([32768])], SAMPLE)
    bits = np.array([4, 5.25], np.float32).view(np.uint32)
    assert selector.selection(0).windows == ((int(bits[0]), int(bits[1])),)
    # Rank 0 keeps nothing, whatever there is.
    selector.expect(sampled(selector, row), [np.array([0])], SAMPLE)
    assert selector.selection(0).windows == ((0, 0),)
