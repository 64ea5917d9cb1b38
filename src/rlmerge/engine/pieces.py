"""Ranges of a tensor on NumPy: decoded, merged and rounded, and what they add up to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlmerge.kernels import random
from rlmerge.kernels.account import account
from rlmerge.kernels.dtypes import DType, decode
from rlmerge.kernels.program import Layout
from rlmerge.kernels.rounding import Rounding, encode


@dataclass(frozen=True)
class Numbers:
    """What a tile adds up to: ``sums`` [blocks, S], ``counts`` [C], and whether inputs or output were not finite."""

    sums: np.ndarray
    counts: np.ndarray
    nonfinite_in: bool = False
    nonfinite_out: bool = False


def together(parts: Sequence[Numbers]) -> Numbers:
    """What the parts of a tile add up to."""
    return Numbers(
        np.concatenate([part.sums for part in parts]),
        np.sum([part.counts for part in parts], axis=0),
        any(part.nonfinite_in for part in parts),
        any(part.nonfinite_out for part in parts),
    )


@dataclass(frozen=True)
class Decoded:
    """A range on NumPy: ``base`` [n] or None, ``stack`` [K, n] as the formula wants it, ``deltas`` [K, n] if any."""

    base: np.ndarray | None
    stack: np.ndarray
    deltas: np.ndarray | None
    extras: Mapping[str, np.ndarray]
    finite: bool


def decode_tile(
    inputs: Sequence[np.ndarray], layout: Layout, extra_names: Mapping[str, int], zero: bool, real: np.dtype
) -> Decoded:
    """Decode storage arrays; ``zero`` replaces NaN and infinity by 0; ``extra_names`` maps names to how many inputs."""

    def numbers(array: np.ndarray, dtype: DType) -> np.ndarray:
        return decode(array, dtype).astype(real, copy=False)

    weights = [numbers(x, dtype) for x, dtype in zip(inputs, layout.inputs, strict=False)]
    finite = all(bool(np.isfinite(w).all()) for w in weights)
    if zero and not finite:
        weights = [np.where(np.isfinite(w), w, real.type(0)) for w in weights]
    base = weights.pop(0) if layout.base is not None else None
    theta = np.stack(weights)
    deltas = None if base is None else theta - base
    rest = list(inputs[len(layout.inputs) :])
    extras: dict[str, np.ndarray] = {}
    for name, count in extra_names.items():
        extras[name] = np.stack([np.asarray(x, real) for x in rest[:count]])
        rest = rest[count:]
    stack = deltas if layout.deltas and deltas is not None else theta
    return Decoded(base, stack, deltas, extras, finite)


@dataclass(frozen=True)
class Rounder:
    """Stores merged numbers as ``out`` and accounts for them, on NumPy."""

    out: DType
    rounding: Rounding
    keeps_base: bool
    key: tuple[int, int]

    def __call__(self, merged: np.ndarray, piece: Decoded, start: int, buffer: np.ndarray) -> Numbers:
        """Round ``merged`` [n], which begins at flat index ``start``, into ``buffer`` [n]."""
        if piece.base is not None and piece.deltas is not None and self.keeps_base:
            merged = np.where((piece.deltas != 0).any(0), merged, piece.base)
        bits = random.bits(self.key, start, len(merged)) if self.rounding == "stochastic" else None
        buffer[:] = stored = encode(merged, self.out, self.rounding, bits)
        overflow = not bool(np.isfinite(decode(stored, self.out)).all())
        if piece.base is None or piece.deltas is None:
            return Numbers(np.zeros((1, 0)), np.zeros(0, np.int64), not piece.finite, overflow)
        counts, sums = account(piece.base, list(piece.deltas), merged, stored, self.out)
        return Numbers(sums[None], counts, not piece.finite, overflow)
