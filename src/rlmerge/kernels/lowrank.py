"""A matrix plus a scaled low-rank product, ``G + s·L·R``, whose bits never depend on how the matrix was cut.

BLAS sums the products of an entry in an order that changes with the shape of the call. Here every entry is
``G + s·((L₀R₀ + L₁R₁) + L₂R₂ …)`` in rising order of the inner index, each operation rounded by itself, whether one
entry is asked for or all, by the compiled loop or by NumPy.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable

import numpy as np

from .compiler import compile_kernel, find_host
from .dtypes import FLOAT16, FLOAT64, DType, decode
from .emit import Emitter

_ROWS, _LANES, _VECTORS = 4, 16, 2
_SIGNATURE = (
    "i64 %rows, i64 %cols, i64 %rank, ptr %ground, ptr %left, i64 %left_row, i64 %left_step, "
    "ptr %right, i64 %right_row, ptr %scale, ptr %out"
)
_POINTER, _INT = ctypes.c_void_p, ctypes.c_int64
_FUNCTION = ctypes.CFUNCTYPE(None, *([_INT] * 3), _POINTER, _POINTER, _INT, _INT, _POINTER, _INT, _POINTER, _POINTER)
_Types = tuple[DType, DType, DType]

_compiled: dict[_Types, tuple[object, Callable[..., None]]] = {}
_lock = threading.Lock()


def add_product(
    ground: np.ndarray, left: np.ndarray, right: np.ndarray, scale: float, types: _Types, out: np.ndarray
) -> None:
    """Write ``ground + scale·left·right`` to ``out``.

    ``ground`` [rows·cols] flat, ``left`` [rows, r] with any strides and ``right`` [r, cols] with contiguous rows hold
    storage values of the three ``types``. ``out`` [rows·cols] is float64 where the ground is, else float32, and is what
    the arithmetic is done in; ``scale`` is rounded to it. ValueError for arrays that do not fit together.
    """
    rows, rank = left.shape
    cols = right.shape[1]
    real = types[0].arithmetic
    fits = right.shape[0] == rank and ground.shape == out.shape == (rows * cols,) and out.dtype == real
    flat = ground.flags.c_contiguous and out.flags.c_contiguous and (cols < 2 or right.strides[1] == right.itemsize)
    if not fits or not flat or any(x.dtype != t.storage for x, t in zip((ground, left, right), types, strict=True)):
        raise ValueError("ground [rows·cols], left [rows, r] and right [r, cols] must fit together and their types")
    function = _function(types) if rows * cols else None
    if function is None:
        _with_numpy(ground, left, right, scale, types, out)
        return
    factor = np.array([scale], real)
    function(
        rows,
        cols,
        rank,
        ground.ctypes.data,
        left.ctypes.data,
        left.strides[0] // left.itemsize,
        left.strides[1] // left.itemsize,
        right.ctypes.data,
        right.strides[0] // right.itemsize,
        factor.ctypes.data,
        out.ctypes.data,
    )


def _with_numpy(
    ground: np.ndarray, left: np.ndarray, right: np.ndarray, scale: float, types: _Types, out: np.ndarray
) -> None:
    """The same operations in the same order, for processors that the compiled loop does not suit."""
    real = out.dtype.type
    # Infinity and NaN in the factors go through as in compiled code.
    with np.errstate(over="ignore", invalid="ignore"):
        first, second = (decode(x, t).astype(real, copy=False) for x, t in zip((left, right), types[1:], strict=True))
        total = np.zeros((len(left), right.shape[1]), real)
        for step in range(left.shape[1]):
            total += first[:, step, None] * second[step]
        total *= real(scale)
        np.add(decode(ground, types[0]).astype(real, copy=False), total.reshape(-1), out=out)


def _function(types: _Types) -> Callable[..., None] | None:
    """The compiled loop; None where this processor cannot convert float16 by itself."""
    with _lock:
        if types not in _compiled:
            host = find_host()
            if FLOAT16 in types and not host.converts_float16:
                return None
            engine, address = compile_kernel(_module(types), host)
            # The engine owns the code, so it is kept with the function.
            _compiled[types] = engine, _FUNCTION(address)
        return _compiled[types][1]


def _module(types: _Types) -> str:
    """LLVM IR of ``@kernel``: panels of columns, so that a panel of ``right`` stays in the first cache for all rows."""
    real = "double" if types[0] is FLOAT64 else "float"
    slots = [f"%sum{row}.{vector}" for row in range(_ROWS) for vector in range(_VECTORS)]
    lines = [
        f"define void @kernel({_SIGNATURE}) {{",
        *(f"%{counter} = alloca i64" for counter in "ijk"),
        *(f"{slot}.{width} = alloca <{width} x {real}>" for slot in slots for width in (_LANES, 1)),
        f"%s = load {real}, ptr %scale",
        f"%full = and i64 %rows, {-_ROWS}",
        f"%wide = and i64 %cols, {-_LANES * _VECTORS}",
        f"%vectors = and i64 %cols, {-_LANES}",
        "store i64 0, ptr %i",
        "store i64 0, ptr %j",
        *_panel("a", "%wide", _LANES, _VECTORS, types, real),
        *_panel("b", "%vectors", _LANES, 1, types, real),
        *_panel("c", "%cols", 1, 1, types, real),
        "ret void",
        "}",
    ]
    return "\n".join(lines)


def _panel(tag: str, end: str, width: int, vectors: int, types: _Types, real: str) -> list[str]:
    """All rows of one panel of columns after the other, from where %j stands up to ``end``."""
    inner = ["store i64 0, ptr %i"]
    for name, rows, last in ((f"{tag}.block", _ROWS, "%full"), (f"{tag}.row", 1, "%rows")):
        inner += _loop(name, "i", last, rows, _tile(name, rows, width, vectors, types, real))
    return _loop(tag, "j", end, width * vectors, inner)


def _loop(name: str, counter: str, end: str, step: int, body: list[str]) -> list[str]:
    """``body`` while the counter is below ``end``; the counter goes on by ``step``."""
    return [
        f"br label %{name}.head",
        f"{name}.head:",
        f"%{name}.at = load i64, ptr %{counter}",
        f"%{name}.more = icmp slt i64 %{name}.at, {end}",
        f"br i1 %{name}.more, label %{name}.body, label %{name}.done",
        f"{name}.body:",
        *body,
        f"%{name}.last = load i64, ptr %{counter}",
        f"%{name}.next = add i64 %{name}.last, {step}",
        f"store i64 %{name}.next, ptr %{counter}",
        f"br label %{name}.head",
        f"{name}.done:",
    ]


def _tile(name: str, rows: int, width: int, vectors: int, types: _Types, real: str) -> list[str]:
    """``rows`` × ``vectors`` sums of ``width`` lanes at (%i, %j): over the inner index, then onto the ground."""
    ground, left, right = types
    before, each, after = (Emitter(width, real, f"{name}.{part}.") for part in ("p", "k", "q"))
    sums = [[f"%sum{row}.{vector}.{width}" for vector in range(vectors)] for row in range(rows)]
    for line in sums:
        for total in line:
            before.do(f"store {before.reals} zeroinitializer, ptr {total}")
    first = before.let("load i64, ptr %i")
    column = before.let("load i64, ptr %j")
    starts = [before.let(f"mul i64 {before.let(f'add i64 {first}, {row}')}, %left_row") for row in range(rows)]
    before.do("store i64 0, ptr %k")

    step = each.let("load i64, ptr %k")
    across = each.let(f"add i64 {each.let(f'mul i64 {step}, %right_row')}, {column}")
    places = [each.let(f"add i64 {across}, {vector * width}") for vector in range(vectors)]
    panel = [each.decode(right, each.load(right, "%right", place)) for place in places]
    for line, start in zip(sums, starts, strict=True):
        place = each.let(f"add i64 {start}, {each.let(f'mul i64 {step}, %left_step')}")
        factor = each.splat(real, _scalar(each, left, "%left", place))
        for total, vector in zip(line, panel, strict=True):
            product = each.let(f"fmul {each.reals} {factor}, {vector}")
            more = each.let(f"fadd {each.reals} {each.let(f'load {each.reals}, ptr {total}')}, {product}")
            each.do(f"store {each.reals} {more}, ptr {total}")

    scale = after.splat(real, "%s")
    for row, line in enumerate(sums):
        start = after.let(f"mul i64 {after.let(f'add i64 {first}, {row}')}, %cols")
        start = after.let(f"add i64 {start}, {column}")
        for vector, total in enumerate(line):
            place = after.let(f"add i64 {start}, {vector * width}")
            update = after.let(f"fmul {after.reals} {scale}, {after.let(f'load {after.reals}, ptr {total}')}")
            value = after.decode(ground, after.load(ground, "%ground", place))
            value = after.let(f"fadd {after.reals} {value}, {update}")
            address = after.let(f"getelementptr inbounds {real}, ptr %out, i64 {place}")
            after.do(f"store {after.reals} {value}, ptr {address}, align 1")
    return [*before.lines, *_loop(f"{name}.over", "k", "%rank", 1, each.lines), *after.lines]


def _scalar(e: Emitter, dtype: DType, pointer: str, place: str) -> str:
    """One stored element as ``real``, through a vector of one lane."""
    one = Emitter(1, e.real, f"{place[1:]}.s")
    value = one.decode(dtype, one.load(dtype, pointer, place))
    value = one.let(f"extractelement {one.reals} {value}, i64 0")
    e.lines += one.lines
    return value
