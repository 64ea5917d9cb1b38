"""Kernels run block by block over files and arrays: what each gives on a whole tile, and digests of what was read."""

import ctypes
import os
from types import SimpleNamespace

import numpy as np
import pytest
import xxhash

from rlmerge.kernels import blocks
from rlmerge.kernels.blocks import Input, run_blocks, xxh3
from rlmerge.kernels.calls import CALL, address
from rlmerge.kernels.dtypes import BFLOAT16, FLOAT32, FLOAT64
from rlmerge.kernels.jit import ACCOUNT_BLOCK
from rlmerge.kernels.loops import SIGNATURE
from rlmerge.kernels.program import Operands, merge_kernel, reduce_kernel
from rlmerge.kernels.select import Selector
from rlmerge.kernels.values import Extra, Uniform, parameters

from .tiles import awkward, expert_of

STEP = 2 * ACCOUNT_BLOCK
COLUMNS = 1000
KEYS = [(1, 2), (3, 4), (5, 6)]


def formula(xp, base, tau, *, scale, row, uniform):
    return base + scale * xp.sum(xp.where(uniform < 0.6, row * tau, 0.0))


def plain(xp, base, tau, *, weight):
    return base + xp.sum(weight * tau)


@pytest.fixture
def on_disk(tmp_path):
    """Arrays as files, each behind some bytes that are not its own; closed afterwards."""
    opened = []

    def write(array, before):
        path = tmp_path / f"{len(opened)}"
        path.write_bytes(bytes(before) + array.tobytes() + b"after")
        opened.append(os.open(path, os.O_RDONLY))
        return opened[-1]

    yield write
    for fd in opened:
        os.close(fd)


def tile(dtype, n):
    rng = np.random.default_rng(n)
    base = awkward(rng, n, dtype)
    return [base, expert_of(rng, base, dtype), expert_of(rng, base, dtype)]


def places(arrays, on_disk):
    """The first array in memory, the others in files, at offsets that are not aligned."""
    memory = [np.empty(STEP * array.itemsize, np.uint8) for array in arrays[1:]]
    inputs = [Input(-1, 0, arrays[0].itemsize, arrays[0].ctypes.data)]
    for index, (array, own) in enumerate(zip(arrays[1:], memory, strict=True)):
        before = 13 + index
        inputs.append(Input(on_disk(array, before), before, array.itemsize, own.ctypes.data))
    return inputs, memory


@pytest.mark.parametrize("dtype", [BFLOAT16, FLOAT32, FLOAT64])
@pytest.mark.parametrize("n", [1, STEP - 1, STEP, 3 * STEP + 77])
def test_several_kernels_give_what_each_gives_alone(on_disk, dtype, n):
    start = 5 * STEP
    operands = Operands(dtype, (dtype,) * 2, True)
    rows = np.linspace(0, 2, 2 * (-(-(start + n) // COLUMNS))).reshape(2, -1)
    first = {"scale": 0.7, "row": rows, "uniform": Uniform(2)}
    second = {"weight": [0.3, 1.5]}
    arrays = tile(dtype, n)
    kernels = [
        (merge_kernel(formula, operands, first, dtype, rounding="stochastic"), first, KEYS),
        (merge_kernel(plain, operands, second, dtype), second, []),
        (merge_kernel(plain, operands, second, dtype, accounts=False), second, []),
    ]
    expected, calls, outs = [], [], []
    for kernel, values, keys in kernels:
        params, table = parameters(values)
        out = np.zeros(n, dtype.storage)
        more = {"params": params, "rows": table, "columns": COLUMNS, "keys": keys[: kernel.streams]}
        found = kernel(arrays, start=start, out=out, block=ACCOUNT_BLOCK, **more)
        expected.append((out, found))
        outs.append(np.zeros(n, dtype.storage))
        bound = kernel.bind(params, table, keys[: kernel.streams], COLUMNS)
        calls.append(bound.call(n, start, outs[-1], ACCOUNT_BLOCK, STEP))
    inputs, _memory = places(arrays, on_disk)
    digests = run_blocks(calls, inputs, n, start, STEP, digested=True)
    for call, out, (alone, found) in zip(calls, outs, expected, strict=True):
        counts = call.found(lambda: arrays)
        assert out.tobytes() == alone.tobytes()
        assert counts.sums.tobytes() == found.sums.tobytes()
        assert counts.counts.tolist() == found.counts.tolist()
        assert (counts.nonfinite_in, counts.nonfinite_out) == (found.nonfinite_in, found.nonfinite_out)
    for array, row in zip(arrays, digests, strict=True):
        assert row.tolist() == [xxhash.xxh3_64_intdigest(array[i : i + STEP].tobytes()) for i in range(0, n, STEP)]


@pytest.mark.parametrize("place", [0, STEP + 3, 2 * STEP])
def test_what_is_not_finite_is_told_in_whatever_block_it_is(on_disk, place):
    arrays = [np.ones(2 * STEP + 1, np.float32) for _ in range(3)]
    arrays[1][place] = np.nan
    operands = Operands(FLOAT32, (FLOAT32,) * 2, True)
    for accounts in (True, False):
        kernel = merge_kernel(plain, operands, {"weight": [1.0, 1.0]}, FLOAT32, accounts=accounts)
        out = np.zeros(2 * STEP + 1, np.float32)
        call = kernel.bind([1.0, 1.0]).call(len(out), 0, out, ACCOUNT_BLOCK, STEP)
        inputs, _memory = places(arrays, on_disk)
        run_blocks([call], inputs, len(out), 0, STEP, digested=False)
        found = call.found(lambda: arrays)
        assert (found.nonfinite_in, found.nonfinite_out) == (True, True)


def test_histograms_and_counts_add_up_over_blocks(on_disk):
    values = [np.random.default_rng(3).standard_normal(2 * STEP + 9).astype(np.float32)]
    kernel = reduce_kernel(lambda xp, b, w: xp.abs(w), Operands(None, (FLOAT32,), False), {}, "kth")
    selections = [Selector(np.dtype(np.float32), 1).selection(len(values[0])) for _ in range(2)]
    kernel(values, selection=selections[0])
    call = kernel.bind().call(len(values[0]), 0, None, ACCOUNT_BLOCK, STEP, selections[1])
    fd = on_disk(values[0], 4)
    memory = np.empty(4 * STEP, np.uint8)
    run_blocks([call], [Input(fd, 4, 4, memory.ctypes.data)], len(values[0]), 0, STEP, digested=False)
    assert np.array_equal(selections[0].histograms, selections[1].histograms)
    assert selections[1].histograms.sum() == len(values[0])
    assert np.array_equal(selections[0].side_counts, selections[1].side_counts)


def test_what_each_step_writes_anew_is_read_by_the_kernels_after_it():
    """Draws of a step in memory of one step, which another kernel reads as an input without an end."""
    n, step = 2 * STEP + 5, STEP
    drawing = merge_kernel(
        lambda xp, b, w, *, uniform: uniform[0], Operands(None, (FLOAT32,), False), {"uniform": Uniform(1)}, FLOAT32
    )
    adding = merge_kernel(
        lambda xp, b, w, *, given: w[0] + given[0],
        Operands(None, (FLOAT32,), False),
        {"given": Extra((FLOAT32,))},
        FLOAT32,
    )
    values, out, room = np.arange(n, dtype=np.float32), np.zeros(n, np.float32), np.zeros(step, np.float32)
    expected = np.zeros(n, np.float32)
    drawing([values], start=STEP, out=expected, keys=KEYS[:1])
    calls = [
        drawing.bind(keys=KEYS[:1]).call(n, STEP, room, ACCOUNT_BLOCK, step, again=True),
        adding.bind().call(n, STEP, out, ACCOUNT_BLOCK, step),
    ]
    inputs = [Input(-1, 0, 4, values.ctypes.data), Input(-1, 0, 0, room.ctypes.data)]
    run_blocks(calls, inputs, n, STEP, step, digested=False)
    assert np.array_equal(out, values + expected)
    assert 0 <= expected.min() < 0.001 and 0.999 < expected.max() < 1


def test_a_file_that_ends_too_early_or_is_no_file_is_told(on_disk, tmp_path):
    arrays = tile(FLOAT32, 2 * STEP)
    kernel = merge_kernel(plain, Operands(FLOAT32, (FLOAT32,) * 2, True), {"weight": [1.0, 1.0]}, FLOAT32)
    for breaks in ("short", "closed"):
        inputs, _memory = places(arrays, on_disk)
        if breaks == "short":
            os.truncate(f"/proc/self/fd/{inputs[2].fd}", 8 * STEP)
        else:
            inputs[1] = inputs[1]._replace(fd=os.sysconf("SC_OPEN_MAX") - 1)
        call = kernel.bind([1.0, 1.0]).call(2 * STEP, 0, np.zeros(2 * STEP, np.float32), ACCOUNT_BLOCK, STEP)
        assert run_blocks([call], inputs, 2 * STEP, 0, STEP, digested=False) is None


def test_the_words_of_a_call_are_the_arguments_of_a_kernel():
    assert SIGNATURE.split(", ")[:2] == ["i64 %n", "i64 %start"]
    arguments = [argument for argument in SIGNATURE.split(", ")[2:] if argument != "ptr %inputs"]
    assert arguments == [f"{kind} %{name}" for name, kind, _ in CALL[1:]]
    with pytest.raises(ValueError, match="rows of 10 columns end before"):
        kernel = merge_kernel(
            lambda xp, b, t, *, row: b + xp.sum(row * t),
            Operands(FLOAT32, (FLOAT32,), True),
            {"row": np.ones((1, 2))},
            FLOAT32,
        )
        kernel.bind(rows=np.ones((1, 2)), columns=10).call(21, 0, np.zeros(21, np.float32), ACCOUNT_BLOCK)


@pytest.fixture
def looked_up():
    xxh3.cache_clear()
    yield
    xxh3.cache_clear()


def test_a_digest_is_believed_that_gives_what_the_package_gives(looked_up, monkeypatch):
    if xxh3() is not None:
        digest = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_char_p, ctypes.c_size_t)(xxh3())
        assert all(digest(bytes(n), n) == xxhash.xxh3_64_intdigest(bytes(n)) for n in (0, 1, 17, 240, 241, 5000))
    other = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_char_p, ctypes.c_size_t)(lambda data, length: 7)
    for library in (SimpleNamespace(), SimpleNamespace(XXH3_64bits=other)):
        xxh3.cache_clear()
        monkeypatch.setattr(blocks.ctypes, "CDLL", lambda path, library=library: library)
        assert xxh3() is None


def test_steps_that_lie_apart(on_disk):
    """Four steps of eight elements, each 100 behind the one before, of a file and of an array."""
    values = np.arange(1, 401, dtype=np.float32)
    layout = Operands(None, (FLOAT32, FLOAT32), False)
    selection = Selector(layout.real, 2).selection(32)
    call = reduce_kernel(itself, layout, {}, "kth").bind().call(32, 0, None, 8, 8, selection)
    own = np.empty(8, np.float32)
    inputs = [Input(on_disk(values, 20), 20, 4, own.ctypes.data), Input(-1, 0, 4, values.ctypes.data)]
    assert run_blocks([call], inputs, 32, 0, 8, False, 100) is not None
    taken = np.concatenate([values[i : i + 8] for i in (0, 100, 200, 300)]).view(np.uint32) >> 15
    for found in selection.histograms:
        assert np.array_equal(found, np.bincount(taken, minlength=len(found)))


def itself(xp, base, weights):
    return weights


def test_addresses_are_those_of_the_first_element():
    array = np.arange(10)
    fixed = array[3:]
    fixed.flags.writeable = False
    for each in (array, array[4:], fixed, array[:0], np.zeros((2, 3), np.float32)):
        assert address(each) == each.__array_interface__["data"][0]
    assert address(None) == 0
