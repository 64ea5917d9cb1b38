"""What one pass over base and experts measures: a formula for fused kernels, and what its counts and sums mean.

One tile goes through ``parts(K)`` kernels: a single one for up to four experts; beyond that one for the experts and one
for each block of pairs, because a loop with hundreds of accumulators no longer fits the processor's registers.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, product
from typing import Any

import numpy as np

from rlmerge.frozen import frozen

from .observation import Observation

EPSILON = 1e-5
"""|τ| up to this is small (arXiv 2505.11711)."""

ETA = 1e-3
"""|τ| up to this share of the larger weight is small (arXiv 2511.08567)."""

SCALE = 4096.0
"""Task vectors enter products times this power of two, exactly, so that fourth powers of 1e-12 stay normal floats."""

FUSED = 4
"""Experts up to which one kernel does everything."""


@frozen
class Part:
    """One kernel: the experts it reads, whether it takes their own figures, and the pairs (places in ``members``)."""

    members: tuple[int, ...]
    single: bool
    pairs: tuple[tuple[int, int], ...]


def parts(experts: int) -> tuple[Part, ...]:
    """The kernels that measure ``experts`` experts and every pair of them once."""
    everyone = tuple(range(experts))
    if experts <= FUSED:
        return (Part(everyone, True, tuple(combinations(everyone, 2))),)
    blocks = [everyone[i : i + 2] for i in range(0, experts, 2)]
    crossing = [
        Part((*a, *b), False, tuple((i, len(a) + j) for i, j in product(range(len(a)), range(len(b)))))
        for a, b in combinations(blocks, 2)
    ]
    inside = [Part(block, False, ((0, 1),)) for block in blocks if len(block) == 2]
    return (Part(everyone, True, ()), *inside, *crossing)


def observe(xp: Any, base: Any, weights: Any, *, part: tuple[bool, tuple[tuple[int, int], ...]], careful: bool) -> Any:
    """Counts, sums and magnitudes of one tile: ``base`` [n], ``weights`` [K, n].

    ``part`` is (``Part.single``, ``Part.pairs``). With ``careful`` a coordinate where the base or an expert is NaN or
    infinite is counted and otherwise treated as unchanged for that expert; without, such values would spoil the sums.
    """
    single, pairs = part
    tau = [weight - base for weight in weights]
    finite: list[Any] = []
    if careful:
        finite = [xp.isfinite(base) & xp.isfinite(weight) for weight in weights]
        tau = [xp.where(mask, delta, 0.0) for mask, delta in zip(finite, tau, strict=True)]
    size = [xp.abs(delta) for delta in tau]
    changed = [delta != 0.0 for delta in tau]
    active = [magnitude > EPSILON for magnitude in size]
    scaled = [delta * SCALE for delta in tau]
    counts: list[Any] = []
    sums: list[Any] = []
    if single:
        anchor = xp.where(xp.isfinite(base), base, 0.0) if careful else base
        near = [s <= ETA * xp.maximum(xp.abs(base), xp.abs(w)) for s, w in zip(size, weights, strict=True)]
        if careful:
            near = [mask & test for mask, test in zip(finite, near, strict=True)]
            counts += [~xp.isfinite(base), *(~mask for mask in finite)]
        times, active_times = _times(xp, changed), _times(xp, active)
        several = [times == float(j + 1) for j in range(len(tau))]
        counts += [mask & exactly for mask in changed for exactly in several]
        counts += [*active, *(mask & (active_times == 1.0) for mask in active), *near]
        sums += [anchor * anchor, *scaled, *(x * x for x in scaled), *(x * x * x for x in scaled)]
    for a, b in pairs:
        both = scaled[a] * scaled[b]
        against = xp.minimum(both, 0.0)
        counts += [changed[a] & changed[b], active[a] & active[b], both < 0.0]
        sums += [xp.abs(both), against, both * both, against * against]
    return {"counts": counts, "sums": sums, "values": size if single else []}


def unpack(part: Part, experts: int, entries: int, counts: np.ndarray, sums: np.ndarray, careful: bool) -> Observation:
    """One kernel's ``counts`` int64 [C] and ``sums`` float64 [S] as an observation of ``experts`` experts."""
    k, where = len(part.members), np.array(part.members)
    found = Observation.zero(experts)
    count, summed = _Cursor(counts), _Cursor(sums)
    if part.single:
        found.entries[where] = entries
        if careful:
            found.base_nonfinite[where] = count.next(1)
            found.nonfinite[where] = count.next(k)
        found.shared_by[where, :k] = count.next(k * k).reshape(k, k)
        for field in (found.active, found.active_alone, found.near):
            field[where] = count.next(k)
        found.base_square[where] = summed.next(1)
        for power, field in enumerate((found.total, found.square, found.cube), start=1):
            field[where] = summed.next(k) / SCALE**power
    for a, b in part.pairs:
        pair = where[a], where[b]
        found.pair_entries[pair] = entries
        found.joint[pair], found.joint_active[pair], found.opposed[pair] = count.next(3)
        size, against, square, against_square = summed.next(4)
        found.product_size[pair], found.opposed_size[pair] = size / SCALE**2, -against / SCALE**2
        found.product_square[pair], found.opposed_square[pair] = square / SCALE**4, against_square / SCALE**4
    return found


class _Cursor:
    """Hands out an array piece after piece, in the order in which the formula listed them."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = values
        self._at = 0

    def next(self, length: int) -> np.ndarray:
        self._at += length
        return self._values[self._at - length : self._at]


def _times(xp: Any, masks: Sequence[Any]) -> Any:
    total = xp.where(masks[0], 1.0, 0.0)
    for mask in masks[1:]:
        total = total + xp.where(mask, 1.0, 0.0)
    return total
