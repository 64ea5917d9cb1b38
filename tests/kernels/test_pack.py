"""Lanes put side by side and taken apart, against NumPy, by every means that this machine has."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from rlmerge.kernels import pack
from rlmerge.kernels.compiler import compile_kernel, find_host
from rlmerge.kernels.emit import Emitter

WIDTH = 16


def compiled(packs: int, real: str):
    """``f(values, flags, memory, out)``, which packs ``values`` into ``memory`` behind its first two words, and fills
    ``out`` from these on; a host without such vectors is no place to run it."""
    host = find_host()
    if packs > host.packs:
        pytest.skip("no such vectors here")
    e = Emitter(WIDTH, real, "v")
    values = e.let(f"load {e.vector(e.word)}, ptr %values, align 1")
    e.do("store i64 2, ptr %end")
    pack.append(e, values, "%flags", packs, "%memory", "%end")
    if real == "float":
        e.do("store i64 0, ptr %end.taken")
        taken = pack.take(e, "%memory", "%flags", packs, "%end.taken", e.number(7.0))
        e.do(f"store {e.reals} {taken}, ptr %out, align 1")
    text = "\n".join(
        [
            "declare i64 @llvm.ctpop.i64(i64)",
            pack.declarations(packs, e.word),
            f"define i64 @kernel(ptr %values, i{WIDTH} %flags, ptr %memory, ptr %out) {{",
            "%end = alloca i64",
            "%end.taken = alloca i64",
            *e.lines,
            "%result = load i64, ptr %end",
            "ret i64 %result",
            "}",
        ]
    )
    engine, address = compile_kernel(text, host)
    function = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_uint16, ctypes.c_void_p, ctypes.c_void_p)
    return engine, function(address)


@pytest.mark.parametrize(("packs", "real"), [(512, "float"), (512, "double"), (256, "float")])
def test_every_choice_of_eight_lanes_and_many_of_sixteen(packs, real):
    _engine, function = compiled(packs, real)
    dtype = np.uint32 if real == "float" else np.uint64
    rng = np.random.default_rng(0)
    low = np.arange(256)
    for flags in [*low, *(low << 8), 0xFFFF, *rng.integers(0, 1 << WIDTH, 2000)]:
        chosen = (int(flags) >> np.arange(WIDTH) & 1).astype(bool)
        values = rng.integers(1, 1 << 30, WIDTH).astype(dtype)
        memory, out = np.zeros(2 + 2 * WIDTH, dtype), np.zeros(WIDTH, np.float32)
        memory[:2] = 1, 2
        end = function(values.ctypes.data, int(flags), memory.ctypes.data, out.ctypes.data)
        assert end == 2 + chosen.sum()
        np.testing.assert_array_equal(memory[:end], [1, 2, *values[chosen]])
        if real == "float":
            expected = np.full(WIDTH, 7.0, np.float32)
            expected[chosen] = memory[: chosen.sum()].view(np.float32)
            np.testing.assert_array_equal(out.view(np.uint32), expected.view(np.uint32))


def test_processors_without_such_vectors_have_no_pieces():
    assert [pack.piece(packs, word) for packs, word in ((512, "i32"), (512, "i64"), (256, "i32"))] == [16, 8, 8]
    assert [pack.piece(packs, word) for packs, word in ((256, "i64"), (0, "i32"), (0, "i64"))] == [0, 0, 0]
    assert pack.declarations(0, "i32") == ""
