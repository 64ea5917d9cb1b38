"""Numbers that depend on the rank of a magnitude within its row, in one compiled pass over each row.

The upper 16 of a magnitude's 31 bits choose one of 65536 bins, which are counted and gone through in rising order.
Differences of bfloat16 numbers rarely hold more bits; those that do are sorted within their bins.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from .calls import call_words
from .compiler import compile_kernel, find_host
from .deltas import Kind, task_vector, weight
from .dtypes import FLOAT16
from .emit import LANES, Emitter, declarations, loop, storage_type
from .loops import SIGNATURE
from .rank_bins import BINS, BITS, COUNTS
from .rank_code import SCRATCH, function
from .rank_code import declarations as rank_declarations
from .values import Spread

SHORTEST = 64
"""Columns below which rows are not worth the walk over all bins."""

_INT, _POINTER, _REAL = ctypes.c_int64, ctypes.c_void_p, ctypes.c_double
_FUNCTION = ctypes.CFUNCTYPE(_INT, _INT, _INT, _POINTER, _REAL, _REAL, _INT, _POINTER, _POINTER)
_own = threading.local()


def spread_by_rank(
    values: np.ndarray, middle: float, half: float, ranked_zeros: bool, out: np.ndarray | None = None
) -> np.ndarray | None:
    """``middle + half·(2r − 1)`` for every entry, where r is the rank of its magnitude in its row as a share.

    ``values`` is float32 [rows, columns] and C-contiguous; the result, in ``out`` if given, is too. r is 0 for the
    smallest and 1 for the largest; equal magnitudes share the mean of their ranks, and a row of one entry or of equal
    ones has ½. Without ``ranked_zeros`` zeros take no rank and get ``middle``. None for rows with NaN, which have no
    rank, and for rows too short for this way.
    """
    rows, columns = values.shape
    if columns < SHORTEST or rows == 0:
        return None
    out = np.empty(values.shape, np.float32) if out is None else out
    if any(x.dtype != np.float32 or not x.flags.c_contiguous or x.shape != values.shape for x in (values, out)):
        raise ValueError("ranks are taken of C-contiguous float32 rows")
    space, _kept = _space(columns)
    _, rank = _of_arrays()
    odd = rank(rows, columns, values.ctypes.data, middle, half, ranked_zeros, out.ctypes.data, space)
    return None if odd else out


class Ranking:
    """Spreads by rank of the task vectors of a tensor with rows of ``columns``, an expert each, block by block."""

    def __init__(self, kind: Kind, columns: int, spreads: Sequence[Spread]) -> None:
        if len(spreads) != len(kind.experts):
            raise ValueError("every expert has a spread of its own")
        self.columns = columns
        self.numbers = np.array(spreads, np.float64)
        self._engine, self.address = _of_inputs(kind)

    @staticmethod
    def takes(kind: Kind, columns: int) -> bool:
        """Whether ranks of such inputs are taken this way."""
        half = FLOAT16 in (kind.base, *kind.experts) and not find_host().converts_float16
        return columns >= SHORTEST and kind.real == np.float32 and not half

    def call(self, memory: np.ndarray) -> RankCall:
        """What fills ``memory``, float32 [experts, step], at every step of a tile, a number of whole rows."""
        return RankCall(self, memory)


class RankCall:
    """A ranking on one tile. ``odd`` tells afterwards whether some row held NaN, whose result is void."""

    def __init__(self, ranking: Ranking, memory: np.ndarray) -> None:
        space, kept = _space(ranking.columns)
        self._odd = np.zeros(1, np.int64)
        self._kept = (ranking, memory, kept)
        self.words = call_words(
            function=ranking.address,
            columns=ranking.columns,
            out=memory.ctypes.data,
            params=ranking.numbers.ctypes.data,
            row_stride=memory.shape[1],
            counts=self._odd.ctypes.data,
            held=space,
        )

    @property
    def odd(self) -> bool:
        """Whether some row held NaN."""
        return bool(self._odd[0])

    def restart(self) -> None:
        """Nothing is added up that another run would count twice."""


def scratch_bytes(columns: int) -> int:
    """Bytes that a thread keeps for rows of such a length."""
    return sum(array.nbytes for array in _arrays(0)) + columns * (4 + 4 + 16 + 4) + columns // 8 + 512


def _arrays(columns: int) -> list[np.ndarray]:
    """The memory that ``SCRATCH`` names."""
    room = columns + LANES
    sizes = [(room, np.uint32), (room, np.uint32), (room // LANES + 1, np.uint16), (2 * columns, np.uint64)]
    sizes += [(room, np.uint32), (COUNTS, np.uint32), (BINS, np.uint32), (BINS, np.uint32), (BINS, np.float32)]
    sizes += [(BITS, np.uint64), (256, np.uint32)]
    return [np.zeros(size, dtype) for size, dtype in sizes]


def _space(columns: int) -> tuple[int, object]:
    """The address of this thread's table of memory, and what keeps it; counts and bits are 0 between calls."""
    held = getattr(_own, "held", None)
    if held is None or held[0] < columns:
        arrays = _arrays(columns)
        assert len(arrays) == len(SCRATCH), "an array a name"
        held = _own.held = columns, arrays, np.array([array.ctypes.data for array in arrays], np.uint64)
    return held[2].ctypes.data, held


@lru_cache(1)
def _of_arrays() -> tuple[object, Callable[..., int]]:
    """The engine that owns the code, and what ranks arrays."""
    host = find_host()
    engine, address = compile_kernel(array_module(host.packs), host)
    return engine, _FUNCTION(address)


@lru_cache(32)
def _of_inputs(kind: Kind) -> tuple[object, int]:
    """The same for inputs as they are stored."""
    host = find_host()
    return compile_kernel(input_module(kind, host.packs), host)


def array_module(packs: int) -> str:
    """LLVM IR of ``@kernel`` over rows of floats; it returns 1 when a row held NaN."""

    def load(e: Emitter, position: str) -> str:
        place = e.let(f"getelementptr float, ptr %theta, i64 {position}")
        return e.let(f"load {e.reals}, ptr {place}, align 4")

    return "\n".join(
        [
            rank_declarations(packs),
            function("rank", load, packs),
            "define i64 @kernel(i64 %rows, i64 %columns, ptr %values, double %middle, double %half, i64 %ranked.zeros, "
            "ptr %out, ptr %scratch) {",
            "%row.at = alloca i64",
            "%odd = alloca i64",
            "store i64 0, ptr %odd",
            "%unranked = icmp eq i64 %ranked.zeros, 0",
            *loop(
                "row",
                "%rows",
                "%first = mul i64 %row, %columns",
                "%row.values = getelementptr float, ptr %values, i64 %first",
                "%row.out = getelementptr float, ptr %out, i64 %first",
                "call void @rank(ptr %row.values, ptr null, i64 %columns, double %middle, double %half, i1 %unranked, "
                "ptr %row.out, ptr %scratch, ptr %odd)",
            ),
            "%result = load i64, ptr %odd",
            "ret i64 %result",
            "}",
        ]
    )


_FILL = "\n".join(
    [
        "define internal void @fill(i64 %columns, double %value, ptr %out) noinline {",
        "%wide.at = alloca i64",
        "%rest.at = alloca i64",
        "%single = fptrunc double %value to float",
        f"%one = insertelement <{LANES} x float> poison, float %single, i64 0",
        f"%all = shufflevector <{LANES} x float> %one, <{LANES} x float> poison, <{LANES} x i32> zeroinitializer",
        f"%whole = and i64 %columns, {-LANES}",
        *loop(
            "wide",
            "%whole",
            "%wide.to = getelementptr float, ptr %out, i64 %wide",
            f"store <{LANES} x float> %all, ptr %wide.to, align 4",
            step=LANES,
        ),
        *loop(
            "rest",
            "%columns",
            "%rest.to = getelementptr float, ptr %out, i64 %rest",
            "store float %single, ptr %rest.to",
            start="%whole",
        ),
        "ret void",
        "}",
    ]
)
"""LLVM IR of ``@fill``, for rows whose entries all get the same."""


def input_module(kind: Kind, packs: int) -> str:
    """LLVM IR of ``@kernel`` with the arguments of all kernels: three numbers an expert are its ``Spread``, the outputs
    of experts are ``row_stride`` entries apart, ``counts`` gets 1 where a row held NaN, and ``held`` is the memory."""
    names = {dtype: f"rank.{number}" for number, dtype in enumerate(dict.fromkeys(kind.experts))}

    def of(dtype: object) -> str:
        def load(e: Emitter, position: str) -> str:
            theta = weight(kind, e, dtype, "%theta", position)  # type: ignore[arg-type]
            return task_vector(kind, e, theta, weight(kind, e, kind.base, "%base", position))

        return function(names[dtype], load, packs)  # type: ignore[index]

    body: list[str] = []
    for k, dtype in enumerate(kind.experts):
        for index, name in enumerate(Spread._fields):
            body.append(f"%{name}{k}.at = getelementptr double, ptr %params, i64 {len(Spread._fields) * k + index}")
            body.append(f"%{name}{k} = load double, ptr %{name}{k}.at")
        body += [
            f"%unranked{k} = fcmp oeq double %ranked_zeros{k}, 0.0",
            f"%theta{k}.at = getelementptr ptr, ptr %inputs, i64 {k + 1}",
            f"%theta{k}.from = load ptr, ptr %theta{k}.at",
            f"%theta{k} = getelementptr {storage_type(dtype)}, ptr %theta{k}.from, i64 %first",
            f"%out{k}.first = mul i64 %row_stride, {k}",
            f"%out{k}.index = add i64 %out{k}.first, %first",
            f"%out{k} = getelementptr float, ptr %out, i64 %out{k}.index",
            f"%even{k} = fcmp oeq double %half{k}, 0.0",
            f"br i1 %even{k}, label %fill{k}, label %rank{k}",
            f"fill{k}:",
            f"call void @fill(i64 %columns, double %middle{k}, ptr %out{k})",
            f"br label %done{k}",
            f"rank{k}:",
            f"call void @{names[dtype]}(ptr %theta{k}, ptr %base, i64 %columns, double %middle{k}, double %half{k}, "
            f"i1 %unranked{k}, ptr %out{k}, ptr %held, ptr %counts)",
            f"br label %done{k}",
            f"done{k}:",
        ]
    return "\n".join(
        [
            declarations("float", (LANES, 1)),
            rank_declarations(packs),
            *(of(dtype) for dtype in names),
            _FILL,
            f"define void @kernel({SIGNATURE}) {{",
            "%row.at = alloca i64",
            "%rows.here = udiv i64 %n, %columns",
            *loop(
                "row",
                "%rows.here",
                "%first = mul i64 %row, %columns",
                "%base.from = load ptr, ptr %inputs",
                f"%base = getelementptr {storage_type(kind.base)}, ptr %base.from, i64 %first",
                *body,
            ),
            "ret void",
            "}",
        ]
    )
