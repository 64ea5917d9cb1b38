"""One bit an element, the first in the lowest bit of a byte: which elements differ, and values put where they do."""

from __future__ import annotations

import numpy as np


def differing(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Where two arrays of equal length and type differ in bits, bool [n]: zeros of other sign and other NaNs count."""
    return _words(one) != _words(other)


def pack(mask: np.ndarray) -> np.ndarray:
    """bool [n] as a bitmap, uint8 [⌈n / 8⌉]."""
    return np.packbits(mask, bitorder="little")


def count(bitmap: np.ndarray) -> int:
    """How many bits are set."""
    return int(np.bitwise_count(bitmap).sum(dtype=np.int64))


def unpack(bitmap: np.ndarray, n: int) -> np.ndarray:
    """The first ``n`` bits as bool [n]."""
    return np.unpackbits(bitmap, count=n, bitorder="little").view(np.bool_)


def scatter(target: np.ndarray, mask: np.ndarray, values: np.ndarray) -> None:
    """Write ``values``, in order, to the elements of ``target`` where ``mask`` is set; as many as there are values."""
    _words(target)[np.flatnonzero(mask)] = _words(values)


def _words(array: np.ndarray) -> np.ndarray:
    """The same bytes as unsigned integers, which compare and copy bit by bit."""
    return array.view(np.dtype(f"u{array.dtype.itemsize}"))
