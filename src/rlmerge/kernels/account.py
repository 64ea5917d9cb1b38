"""What a merge did to each expert's changes, with NumPy: the reference for the kernels and the path without them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .dtypes import DType, decode
from .rounding import encode


def account(
    base: np.ndarray, deltas: Sequence[np.ndarray], merged: np.ndarray, stored: np.ndarray, out: DType
) -> tuple[np.ndarray, np.ndarray]:
    """Counts int64 [2 + 4K] and sums float64 [5K] in the order of ``sinks.Write``, for one tile of length n.

    ``base`` and ``deltas`` are decoded, ``merged`` is what was rounded, ``stored`` holds the storage values of type
    ``out`` that came of it.
    """
    final = decode(stored, out)
    survived = final != decode(encode(base, out), out)
    erased = ~survived & (merged != base)
    changed = [delta != 0 for delta in deltas]
    times = np.sum(changed, axis=0)
    counts = [np.count_nonzero(times), np.count_nonzero((times > 0) & survived)]
    asked, moved = merged.astype(np.float64) - base, final.astype(np.float64) - base
    sums: list[float] = []
    for mask, delta in zip(changed, deltas, strict=True):
        unique = mask & (times == 1)
        counts += [np.count_nonzero(x) for x in (mask, mask & survived, unique, mask & erased)]
        wide = delta.astype(np.float64)
        product, square = moved * wide, wide * wide
        sums += [(asked * wide)[unique].sum(), product[unique].sum(), square[unique].sum()]
        sums += [product.sum(), square.sum()]
    return np.array(counts, np.int64), np.array(sums)
