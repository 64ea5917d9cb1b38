"""Calls of compiled kernels: threads, arrays that do not fit, and other processors."""

import threading
from types import SimpleNamespace

import llvmlite.binding as llvm
import numpy as np
import pytest

from rlmerge.kernels import compiler, jit
from rlmerge.kernels.dtypes import BFLOAT16, FLOAT16, FLOAT32, FLOAT64
from rlmerge.kernels.jit import ACCOUNT_BLOCK
from rlmerge.kernels.program import Operands, merge_kernel, reduce_kernel
from rlmerge.kernels.select import Selector
from rlmerge.kernels.trace import UntraceableError
from rlmerge.kernels.values import Uniform, parameters

from .tiles import awkward, expert_of, same_stored

VALUES = {"scale": 0.7, "weight": [0.5, 2.0], "row": np.linspace(0, 1, 2 * 100).reshape(2, 100), "uniform": Uniform(2)}
KEYS = [(1, 2), (3, 4), (5, 6)]


def formula(xp, base, tau, *, scale, weight, row, uniform):
    kept = xp.where(uniform < 0.5, row * tau, xp.sqrt(xp.abs(tau)) * xp.sign(tau))
    return base + scale * xp.sum(weight * kept) / xp.maximum(xp.count(kept > 0), 0.5)


def variant(xp, base, tau, **values):
    """The same arithmetic under another name, so that it is compiled anew."""
    return formula(xp, base, tau, **values)


def run(function, dtype, out_dtype, rounding, arrays):
    layout = Operands(dtype, (dtype,) * 2, True)
    kernel = merge_kernel(function, layout, VALUES, out_dtype, rounding=rounding)
    params, rows = parameters(VALUES)
    out = np.zeros(len(arrays[0]), out_dtype.storage)
    found = kernel(
        arrays, out=out, params=params, rows=rows, columns=100, keys=KEYS[: kernel.streams], block=ACCOUNT_BLOCK
    )
    return out, found


def tile(dtype, n=9999):
    rng = np.random.default_rng(0)
    base = awkward(rng, n, dtype)
    return [base, expert_of(rng, base, dtype), expert_of(rng, base, dtype)]


def test_threads_share_a_kernel():
    arrays, n = tile(BFLOAT16, 50_000), 4
    columns = {**VALUES, "row": np.ones((2, 500))}
    kernel = merge_kernel(formula, Operands(BFLOAT16, (BFLOAT16,) * 2, True), columns, BFLOAT16)
    params, rows = parameters(columns)
    results, barrier = [None] * n, threading.Barrier(n)

    def work(k):
        barrier.wait()
        for _ in range(10):
            out = np.zeros(50_000, np.uint16)
            found = kernel(arrays, out=out, params=params, rows=rows, columns=100, keys=KEYS[:2], block=ACCOUNT_BLOCK)
            results[k] = (out.tobytes(), found.sums.tobytes(), found.counts.tobytes())

    threads = [threading.Thread(target=work, args=(k,)) for k in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(results)) == 1
    assert results[0] is not None


def test_threads_compile_a_kernel_once():
    found, barrier = [], threading.Barrier(4)

    def work():
        barrier.wait()
        found.append(reduce_kernel(fresh, Operands(None, (FLOAT32,), False), {}, "sum"))

    def fresh(xp, base, weights):
        return weights

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(map(id, found))) == 1


# Down to the baseline of x86-64 and of ARMv8: results may not depend on the width of vector units or on FMA.
WEAKER = {
    "x86_64": [("x86-64", ""), ("x86-64-v2", ""), ("haswell", "-fma"), ("skylake", "")],
    "aarch64": [("generic", "")],
}


@pytest.mark.parametrize("level", range(4))
@pytest.mark.parametrize(
    ("dtype", "out", "rounding"),
    [
        (BFLOAT16, BFLOAT16, "nearest"),
        (BFLOAT16, BFLOAT16, "stochastic"),
        (FLOAT32, FLOAT32, "nearest"),
        (FLOAT64, BFLOAT16, "stochastic"),
        (FLOAT64, FLOAT64, "nearest"),
    ],
)
def test_other_processors_get_the_same_bits(monkeypatch, level, dtype, out, rounding):
    weaker = WEAKER.get(llvm.get_process_triple().split("-")[0], [])
    if level >= len(weaker):
        pytest.skip("no weaker processor of this family to compile for")
    here, counts = run(formula, dtype, out, rounding, tile(dtype))
    monkeypatch.setattr("rlmerge.kernels.program._kernels", {})
    monkeypatch.setattr(jit, "find_host", lambda: compiler.Host(*weaker[level], converts_float16=False))
    there, other = run(variant, dtype, out, rounding, tile(dtype))
    assert same_stored(there, here, out)
    assert np.array_equal(counts.counts, other.counts)
    assert np.array_equal(counts.sums, other.sums, equal_nan=True)


@pytest.mark.parametrize(("dtype", "out"), [(FLOAT16, FLOAT32), (FLOAT32, FLOAT16)])
def test_float16_without_hardware_conversion_falls_back_to_numpy(monkeypatch, dtype, out):
    monkeypatch.setattr("rlmerge.kernels.program._kernels", {})
    monkeypatch.setattr(jit, "find_host", lambda: compiler.Host("x86-64", "", converts_float16=False))
    with pytest.raises(UntraceableError, match="cannot convert float16"):
        run(formula, dtype, out, "nearest", tile(dtype))


@pytest.mark.parametrize(
    ("triple", "f16c", "converts"),
    [("x86_64-pc-linux-gnu", True, True), ("x86_64-pc-linux-gnu", False, False), ("arm64-apple-darwin", False, True)],
)
def test_which_processors_convert_float16(monkeypatch, triple, f16c, converts):
    class Features(dict):
        flatten = str

    host = SimpleNamespace(
        get_process_triple=lambda: triple,
        get_host_cpu_features=lambda: Features(f16c=True) if f16c else Features(),
        get_host_cpu_name=lambda: "any",
    )
    monkeypatch.setattr(compiler, "llvm", host)
    assert compiler.find_host().converts_float16 is converts


def test_arrays_that_do_not_fit_are_refused_before_anything_is_read():
    layout = Operands(BFLOAT16, (BFLOAT16,), True)
    values = {"scale": 1.0, "row": np.ones((1, 2))}
    params, rows = parameters(values)
    kernel = merge_kernel(lambda xp, b, t, *, scale, row: b + scale * xp.sum(row * t), layout, values, BFLOAT16)
    short, good, wide = np.zeros(9, np.uint16), np.zeros(10, np.uint16), np.zeros(10, np.float32)

    def call(inputs=(good, good), **changes):
        kernel(inputs, **{"out": good.copy(), "params": params, "rows": rows, "columns": 5, **changes})

    call()
    for inputs in ((good, short), (good,), (good, good, good), (good, np.zeros((10, 1), np.uint16))):
        with pytest.raises(ValueError, match=r"takes \d contiguous arrays"):
            call(inputs)
    with pytest.raises(ValueError, match="contiguous"):
        call((good, np.zeros(20, np.uint16)[::2]))
    for changes, message in (
        ({"inputs": (good, wide)}, "arrays of uint16, uint16"),
        ({"out": wide}, "arrays of uint16"),
        ({"out": short}, "same length"),
        ({"out": None}, "needs 'out'"),
        ({"params": ()}, "as many parameters"),
        ({"rows": None}, "as many parameters"),
        ({"keys": [(1, 2)]}, "as many parameters"),
        ({"columns": 4}, "2 rows of 4 columns"),
        ({"start": 1}, "2 rows of 5 columns"),
    ):
        with pytest.raises(ValueError, match=message):
            call(**changes)


def test_a_kernel_that_selects_needs_its_selection():
    kernel = reduce_kernel(lambda xp, b, w: xp.abs(w), Operands(None, (FLOAT32,) * 2, False), {}, "kth")
    arrays = [np.ones(3, np.float32)] * 2
    for selection in (None, Selector(np.dtype(np.float32), 1).selection()):
        with pytest.raises(ValueError, match="selection of 2 values"):
            kernel(arrays, selection=selection)


def test_read_only_inputs_and_empty_tiles():
    kernel = merge_kernel(lambda xp, b, w: w[0], Operands(None, (FLOAT32,), False), {}, FLOAT32)
    frozen = np.frombuffer(np.arange(5, dtype=np.float32).tobytes(), np.float32)
    out = np.zeros(5, np.float32)
    kernel([frozen], out=out)
    assert np.array_equal(out, frozen)
    empty = kernel([frozen[:0]], out=out[:0])
    assert empty.sums.shape == (0, 0)
    assert not empty.nonfinite_in
