"""Task vectors of a range decoded by machine code, for functions of whole rows that NumPy computes.

NumPy alone makes five fresh arrays for it, whose pages cost more than the arithmetic.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from rlmerge.frozen import frozen

from .compiler import compile_kernel, find_host
from .dtypes import FLOAT16, DType
from .emit import LANES, Emitter, declarations

KEPT = 4 * 2**20
"""Bytes up to which a thread keeps its arrays for its next range."""

_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_int64, *([ctypes.c_void_p] * 3))
_scratch = threading.local()


@frozen
class Kind:
    """What is compiled: types of base and experts; ``zero`` takes NaN and infinity for 0, and with ``same_is_zero``
    equal weights have no delta even where they are infinite."""

    base: DType
    experts: tuple[DType, ...]
    real: np.dtype
    zero: bool = False
    same_is_zero: bool = False


def decode_deltas(kind: Kind, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray] | None:
    """Base [n] and deltas [K, n] in the arithmetic type, from contiguous storage arrays [n] of base and experts.

    They are the thread's own, and valid until its next call. None on a processor that cannot decode a type by itself.
    """
    dtypes = (kind.base, *kind.experts)
    if FLOAT16 in dtypes and not find_host().converts_float16:
        return None
    n = len(inputs[0])
    if len(inputs) != len(dtypes) or any(
        x.shape != (n,) or x.dtype != dtype.storage or not x.flags.c_contiguous
        for x, dtype in zip(inputs, dtypes, strict=False)
    ):
        raise ValueError(f"{len(dtypes)} contiguous arrays of one length, in the storage types of base and experts")
    space = _space(len(dtypes) * n, kind.real).reshape(len(dtypes), n)
    pointers = (ctypes.c_void_p * len(dtypes))(*(x.ctypes.data for x in inputs))
    _, function = _compiled(kind)
    function(n, ctypes.addressof(pointers), space.ctypes.data, space[1:].ctypes.data)
    return space[0], space[1:]


def _space(count: int, real: np.dtype) -> np.ndarray:
    nbytes = count * real.itemsize
    if nbytes > KEPT:
        return np.empty(count, real)
    held = getattr(_scratch, "held", None)
    if held is None or len(held) < nbytes:
        held = _scratch.held = np.empty(nbytes, np.uint8)
    return held[:nbytes].view(real)


@lru_cache(32)
def _compiled(kind: Kind) -> tuple[object, Callable[..., None]]:
    engine, address = compile_kernel(module(kind), find_host())
    # The engine owns the code, so it is kept with the function.
    return engine, _FUNCTION(address)


def module(kind: Kind) -> str:
    """LLVM IR of ``@kernel``."""
    real = "double" if kind.real == np.float64 else "float"
    lines = ["entry:", "%at = alloca i64", "store i64 0, ptr %at", f"%whole = and i64 %n, {-LANES}"]
    for i in range(len(kind.experts) + 1):
        lines.append(f"%input{i}.at = getelementptr inbounds ptr, ptr %inputs, i64 {i}")
        lines.append(f"%input{i} = load ptr, ptr %input{i}.at")
    for k in range(len(kind.experts)):
        lines.append(f"%first{k} = mul i64 %n, {k}")
        lines.append(f"%delta{k} = getelementptr inbounds {real}, ptr %deltas, i64 %first{k}")
    lines.append("br label %v.head")
    for name, width, end, following in (("v", LANES, "%whole", "t.head"), ("t", 1, "%n", "exit")):
        lines += [
            f"{name}.head:",
            f"%{name}.i = load i64, ptr %at",
            f"%{name}.more = icmp slt i64 %{name}.i, {end}",
            f"br i1 %{name}.more, label %{name}.body, label %{following}",
            f"{name}.body:",
            *_body(kind, Emitter(width, real, name), f"%{name}.i"),
            f"%{name}.next = add i64 %{name}.i, {width}",
            f"store i64 %{name}.next, ptr %at",
            f"br label %{name}.head",
        ]
    head = "define void @kernel(i64 %n, ptr %inputs, ptr %base, ptr %deltas) {"
    return "\n".join([declarations(real, (LANES, 1)), head, *lines, "exit:", "ret void", "}"])


def _body(kind: Kind, e: Emitter, position: str) -> list[str]:
    def store(value: str, pointer: str) -> None:
        place = e.let(f"getelementptr inbounds {e.real}, ptr {pointer}, i64 {position}")
        e.do(f"store {e.reals} {value}, ptr {place}, align {4 if e.real == 'float' else 8}")

    base = weight(kind, e, kind.base, "%input0", position)
    store(base, "%base")
    for k, dtype in enumerate(kind.experts):
        store(task_vector(kind, e, weight(kind, e, dtype, f"%input{k + 1}", position), base), f"%delta{k}")
    return e.lines


def weight(kind: Kind, e: Emitter, dtype: DType, pointer: str, position: str) -> str:
    """Decoded weights from ``position`` of an input on."""
    decoded = e.decode(dtype, e.load(dtype, pointer, position))
    if not kind.zero:
        return decoded
    finite = e.compare("olt", e.intrinsic("fabs", decoded), e.number(float("inf")))
    return e.select(finite, decoded, e.number(0.0))


def task_vector(kind: Kind, e: Emitter, theta: str, base: str) -> str:
    """What an expert changed of the base."""
    delta = e.let(f"fsub {e.reals} {theta}, {base}")
    return e.select(e.compare("oeq", theta, base), e.number(0.0), delta) if kind.same_is_zero else delta
