"""Numbers that depend on the rank of a magnitude within its row, in one compiled pass over each row.

The upper 16 of a magnitude's 31 bits choose one of 65536 bins, which are counted and gone through in rising order.
Differences of bfloat16 numbers rarely hold more bits; a row that does is sorted within its bins.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable

import numpy as np

from .compiler import compile_kernel, find_host
from .rank_bins import BINS, BITS, COUNTS
from .rank_code import module

SHORTEST = 64
"""Columns below which rows are not worth the walk over all bins."""

_INT, _POINTER, _REAL = ctypes.c_int64, ctypes.c_void_p, ctypes.c_double
_FUNCTION = ctypes.CFUNCTYPE(_INT, _INT, _INT, _POINTER, _REAL, _REAL, _INT, *([_POINTER] * 6))
_compiled: list[tuple[object, Callable[..., int]]] = []
_lock = threading.Lock()
_scratch = threading.local()


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
    pairs = np.empty(2 * columns, np.uint64)
    space = _space()
    odd = _function()(
        rows, columns, values.ctypes.data, middle, half, ranked_zeros, out.ctypes.data, pairs.ctypes.data, *space
    )
    return None if odd else out


def _space() -> list[int]:
    """Addresses of this thread's counts, results and bits of bins, and digits; counts and bits are 0 between calls."""
    if not hasattr(_scratch, "arrays"):
        sizes = ((COUNTS, np.uint32), (BINS, np.float32), (BITS, np.uint64), (256, np.uint32))
        _scratch.arrays = [np.zeros(size, dtype) for size, dtype in sizes]
    return [array.ctypes.data for array in _scratch.arrays]


def _function() -> Callable[..., int]:
    with _lock:
        if not _compiled:
            engine, address = compile_kernel(module(), find_host())
            # The engine owns the code, so it is kept with the function.
            _compiled.append((engine, _FUNCTION(address)))
        return _compiled[0][1]
