"""The documented order of additions, and that no cut at a block boundary can change a bit."""

import itertools

import numpy as np
import pytest

from rlmerge.kernels.dtypes import FLOAT32, FLOAT64
from rlmerge.kernels.emit import LANES
from rlmerge.kernels.loops import Program, module, streams
from rlmerge.kernels.program import Operands, merge_kernel, reduce_kernel
from rlmerge.kernels.sinks import Reduce, Write
from rlmerge.kernels.trace import Graph
from rlmerge.kernels.values import Uniform, parameters

BLOCK = 64


def identity(xp, base, weights):
    return weights


def times_row(xp, base, weights, *, row):
    return weights * row


def lanes_in_order(values, block, columns=None, start=0):
    """float64 [blocks]: 16 lanes over whole vectors of each row, added lane after lane, and the rest last."""
    totals = []
    for first in range(0, len(values), block):
        last = min(first + block, len(values))
        lanes, rest, at = np.zeros(LANES), 0.0, first
        while at < last:
            row_end = last if columns is None else ((start + at) // columns + 1) * columns - start
            end = min(row_end, last)
            while at + LANES <= end:
                lanes += values[at : at + LANES]
                at += LANES
            while at < end:
                rest += values[at]
                at += 1
        total = lanes[0]
        for lane in lanes[1:]:
            total += lane
        totals.append(total + rest)
    return np.array(totals)


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64])
@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 37])
def test_sums_add_sixteen_lanes_in_float64_and_the_remainder_last(n, dtype):
    values = np.random.default_rng(n).standard_normal(n).astype(dtype.storage)
    kernel = reduce_kernel(identity, Operands(None, (dtype,), False), {}, "sum")
    found = kernel([values], block=BLOCK).sums
    assert found.shape == (-(-n // BLOCK), 1)
    assert np.array_equal(found[:, 0], lanes_in_order(values.astype(np.float64), BLOCK))


@pytest.mark.parametrize("columns", [1, 3, 16, 17, 40, 64, 100, 1000])
@pytest.mark.parametrize("cuts", [(0, 1), (0, 2, 3), (0, 1, 2, 3, 4, 5)])
def test_cuts_at_block_boundaries_change_no_bit(columns, cuts):
    n, rng = 6 * BLOCK - 5, np.random.default_rng(0)
    values = rng.standard_normal(n).astype(np.float32)
    rows = rng.standard_normal((1, n // columns + 1)).astype(np.float32)
    kernel = reduce_kernel(times_row, Operands(None, (FLOAT32,), False), {"row": rows}, "sum")

    def sums(start, stop):
        return kernel([values[start:stop]], start=start, block=BLOCK, columns=columns, rows=rows).sums[:, 0]

    whole = sums(0, n)
    edges = [*(cut * BLOCK for cut in cuts), n]
    pieces = [sums(a, b) for a, b in itertools.pairwise(edges)]
    assert np.array_equal(np.concatenate(pieces), whole)
    terms = (values * rows[0][np.arange(n) // columns]).astype(np.float64)
    assert np.array_equal(whole, lanes_in_order(terms, BLOCK, columns))


def test_outputs_counts_and_accounts_do_not_depend_on_cuts_either():
    def dropped(xp, base, tau, *, uniform):
        return base + xp.sum(xp.where(uniform < 0.5, tau, 0.0))

    n, rng = 5 * BLOCK + 9, np.random.default_rng(1)
    arrays = [rng.standard_normal(n).astype(np.float32) for _ in range(3)]
    kernel = merge_kernel(dropped, Operands(FLOAT32, (FLOAT32,) * 2, True), {"uniform": Uniform(2)}, FLOAT32)

    def run(start, stop):
        out = np.zeros(stop - start, np.float32)
        found = kernel([x[start:stop] for x in arrays], start=start, out=out, block=BLOCK, keys=[(1, 2), (3, 4)])
        return out, found

    out, whole = run(0, n)
    pieces = [run(a, b) for a, b in ((0, 2 * BLOCK), (2 * BLOCK, 3 * BLOCK), (3 * BLOCK, n))]
    assert np.array_equal(np.concatenate([piece[0] for piece in pieces]), out)
    assert np.array_equal(np.concatenate([piece[1].sums for piece in pieces]), whole.sums)
    assert np.array_equal(sum(piece[1].counts for piece in pieces), whole.counts)


def test_counts_are_exact_over_many_blocks():
    n = 3 * BLOCK + 7
    values = np.random.default_rng(2).integers(-1, 2, n).astype(np.float32)
    kernel = reduce_kernel(lambda xp, b, w: [w[0] != 0, w[0] > 0], Operands(None, (FLOAT32,), False), {}, "count")
    assert kernel([values], block=BLOCK).counts.tolist() == [np.count_nonzero(values), np.count_nonzero(values > 0)]


def test_random_keys_are_one_a_stream_and_one_for_stochastic_rounding():
    graph = Graph()
    weight, second = graph.leaf("weight", 0), graph.leaf("uniform", 1)
    graph.leaf("uniform", 0)
    assert streams(Program(graph, (FLOAT32,), "float", Reduce(sums=[weight * second]))) == 2
    write = Write(weight, FLOAT32, "nearest", None, (), False)
    assert streams(Program(graph, (FLOAT32,), "float", write)) == 2
    assert streams(Program(graph, (FLOAT32,), "float", Write(weight, FLOAT32, "stochastic", None, (), False))) == 3


def test_the_module_allows_no_inexact_shortcuts():
    graph = Graph()
    weight = graph.leaf("weight", 0)
    text, slots = module(Program(graph, (FLOAT32,), "float", Reduce(sums=[weight * weight + weight])))
    assert (slots.sums, slots.counts) == (1, 0)
    code = "\n".join(line for line in text.splitlines() if not line.startswith("declare"))
    assert not any(
        flag in code for flag in (" fast ", " contract ", " reassoc ", " nnan ", " nsz ", "fmuladd", "llvm.fma")
    )


def test_parameters_of_every_kind_bind_together():
    def mixed(xp, base, weights, *, a, each, row):
        return a * weights[0] + row[0] * weights[1] + each[1]

    rng = np.random.default_rng(3)
    arrays, rows = [rng.standard_normal(40) for _ in range(2)], rng.standard_normal((1, 4))
    values = {"row": rows, "a": 0.5, "each": np.array([7.0, 0.25])}
    params, table = parameters(values)
    out = np.zeros(40)
    kernel = merge_kernel(mixed, Operands(None, (FLOAT64,) * 2, False), values, FLOAT64)
    kernel(arrays, out=out, params=params, rows=table, columns=10)
    assert np.array_equal(out, 0.5 * arrays[0] + np.repeat(rows[0], 10) * arrays[1] + 0.25)
