"""Runs the kernels of ``observe`` over tiles in memory. Calls are thread-safe and release the interpreter lock."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlmerge.kernels.dtypes import DType
from rlmerge.kernels.jit import Counts, Selection
from rlmerge.kernels.program import Operands, reduce_kernel

from .magnitudes import BINS, Magnitudes
from .observation import Observation
from .observe import Part, observe, parts, unpack

SIDE_SHARE = 8
"""A tile of n entries has room for n / 8 magnitudes off the bin edges; trained bfloat16 models had n / 11."""


def measure(base: np.ndarray, experts: Sequence[np.ndarray], dtypes: Sequence[DType]) -> Observation:
    """Everything one pass sees of one tile: storage values ``base`` [n] and ``experts`` K × [n].

    ``dtypes`` [1 + K] are the element types of base and experts. A tile with NaN or infinity is measured a second time
    by kernels that count such coordinates and leave them out.
    """
    total = Observation.zero(len(experts))
    for part in parts(len(experts)):
        tiles = [base, *(experts[k] for k in part.members)]
        layout = Operands(dtypes[0], tuple(dtypes[1 + k] for k in part.members), deltas=False)
        found, nonfinite = _run(part, tiles, layout, len(experts), careful=False)
        if nonfinite:
            found, _ = _run(part, tiles, layout, len(experts), careful=True)
        total = total + found
    return total


def _run(
    part: Part, tiles: Sequence[np.ndarray], layout: Operands, experts: int, careful: bool
) -> tuple[Observation, bool]:
    values = {"part": (part.single, part.pairs), "careful": careful}
    kernel = reduce_kernel(observe, layout, values, "several")
    selection = _selection(len(part.members), len(tiles[0]), kernel.real) if part.single else None
    counts = kernel(tiles, selection=selection)
    found = unpack(part, experts, len(tiles[0]), counts.counts, _total(counts), careful)
    if selection is not None:
        found = found.with_magnitudes(_magnitudes(selection, kernel.real))
    return found, counts.nonfinite_in


def _total(counts: Counts) -> np.ndarray:
    return counts.sums.sum(axis=0)


def _selection(count: int, entries: int, real: np.dtype) -> Selection:
    """First-pass histograms of ``count`` values over all leading 16 bits, with side lists for float32."""
    single = real == np.float32
    shift, capacity = (15, 64 + entries // SIDE_SHARE) if single else (47, 0)
    return Selection(
        shift=shift,
        bin_mask=BINS - 1,
        low_mask=(1 << shift) - 1 if single else 0,
        windows=((1, 1 << (31 if single else 63)),) * count,
        histograms=np.zeros((count, BINS), np.int64),
        side=np.empty((count, capacity), np.uint32 if single else np.uint64),
        side_counts=np.zeros(count, np.int64),
    )


def _magnitudes(selection: Selection, real: np.dtype) -> list[Magnitudes]:
    capacity = selection.side.shape[1]
    return [
        Magnitudes.counted(histogram, side[:used] if capacity and used <= capacity else None, real)
        for histogram, side, used in zip(
            selection.histograms, selection.side, selection.side_counts.tolist(), strict=True
        )
    ]
