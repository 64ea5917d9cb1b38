"""Exact selection by magnitude from streamed histograms: the r-th largest of millions of numbers in one or two passes.

The bits of a non-negative float, read as an integer, order like the float. The first pass counts the leading 16 of the
31 bits of a float32 (16 of 63 for float64). Differences of two bfloat16 numbers rarely have lower bits set; those that
do also go to a side list, which then decides within the bin that is hit. When the list overflows (float16 and float32
inputs), a second pass counts the low bits of that bin only; float64 takes up to four.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .histogram import BINS
from .jit import Selection

SIDE_CAPACITY = 1 << 18
"""Side-list entries kept per value and tile before a second pass is needed."""

SIDE_TOTAL = 1 << 20
"""Side-list entries kept per value over all tiles: 4 MiB."""

_NOTHING = {np.uint32: 0xFFFFFFFF, np.uint64: 0xFFFFFFFFFFFFFFFF}
"""A prefix no word has, for values that are already known."""


@dataclass
class Tally:
    """Mergeable counts of one pass: ``histograms`` int64 [M, 65536] and M side lists of words, None once overflown."""

    histograms: np.ndarray
    side: list[list[np.ndarray] | None]
    _sums: dict[int, np.ndarray] = field(default_factory=dict[int, np.ndarray])

    def from_top(self, i: int) -> np.ndarray:
        """How many entries of value i lie in the first bins from the largest on, int64 [65536]; nothing may be added
        any more."""
        if i not in self._sums:
            self._sums[i] = np.cumsum(self.histograms[i][::-1])
        return self._sums[i]

    def add(self, other: Tally) -> None:
        """Merge the tally of another tile."""
        self.histograms += other.histograms
        for i, (mine, more) in enumerate(zip(self.side, other.side, strict=True)):
            joined = None if mine is None or more is None else [*mine, *more]
            fits = joined is not None and sum(map(len, joined)) <= SIDE_TOTAL
            self.side[i] = joined if fits else None


class Selector:
    """Finds the ranks of M values pass after pass.

    For each tile of a pass: a fresh ``selection()`` for the kernel, then ``tally.add(collect(selection))``. After the
    pass ``advance(ranks)``, until it says that ``result`` [M] is exact: infinity for rank 0, and 0 when the rank
    exceeds the number of non-zero entries.
    """

    def __init__(self, dtype: np.dtype, count: int) -> None:
        self.dtype = np.dtype(dtype)
        self.count = count
        self.result = np.zeros(count)
        self.nonzero: np.ndarray | None = None
        self._word = np.uint32 if self.dtype == np.float32 else np.uint64
        self._prefixes = [0] * count
        self._left: dict[int, int] = {}
        self._started = False
        self._prefix_shift = 31 if self.dtype == np.float32 else 63
        self._shift = self._prefix_shift - 16
        self.tally = self._empty()

    @property
    def _listed(self) -> bool:
        """Whether this pass fills side lists: the first one over float32."""
        return self.dtype == np.float32 and self._shift == 15

    def _empty(self) -> Tally:
        return Tally(np.zeros((self.count, BINS), np.int64), [[] if self._listed else None for _ in range(self.count)])

    def selection(self, numel: int = SIDE_CAPACITY) -> Selection:
        """Fresh arrays for a kernel call on one tile of ``numel`` elements."""
        capacity = min(numel, SIDE_CAPACITY) if self._listed else 0
        return Selection(
            shift=self._shift,
            bin_mask=(1 << (self._prefix_shift - self._shift)) - 1,
            low_mask=(1 << self._shift) - 1 if self._listed else 0,
            prefix_shift=self._prefix_shift,
            prefixes=tuple(self._prefixes),
            histograms=np.zeros((self.count, BINS), np.int64),
            side=np.empty((self.count, capacity), self._word),
            side_counts=np.zeros(self.count, np.int64),
        )

    def collect(self, selection: Selection) -> Tally:
        """The tally of one kernel call."""
        capacity = selection.side.shape[1]
        side = [
            [row[:used].copy()] if self._listed and used <= capacity else None
            for row, used in zip(selection.side, selection.side_counts, strict=True)
        ]
        return Tally(selection.histograms, side)

    def tally_of(self, rows: Sequence[np.ndarray]) -> Tally:
        """The tally of M arrays of non-negative values, without a kernel."""
        tally = self._empty()
        for i, values in enumerate(rows):
            words = np.ascontiguousarray(values, self.dtype).view(self._word)
            chosen = words[(words != 0) & (words >> self._word(self._prefix_shift) == self._prefixes[i])]
            mask = self._word((1 << (self._prefix_shift - self._shift)) - 1)
            bins = (chosen >> self._word(self._shift)) & mask
            tally.histograms[i] = np.bincount(bins.astype(np.int64), minlength=BINS)
            if self._listed:
                low = self._word((1 << self._shift) - 1)
                tally.side[i] = [chosen[(chosen & low) != 0]]
        return tally

    def count_nonzero(self) -> np.ndarray:
        """Non-zero entries of each value, int64 [M]; known once the first pass is complete."""
        if self.nonzero is None:
            self.nonzero = np.asarray(self.tally.histograms.sum(axis=1))
        return self.nonzero

    def advance(self, ranks: np.ndarray) -> bool:
        """Use the finished pass for the r-th largest, ``ranks`` [M]; True when every result is exact."""
        if not self._started:
            self._started = True
            nonzero = self.count_nonzero()
            self.result = np.where(np.asarray(ranks) <= 0, np.inf, 0.0)
            self._left = {i: int(r) for i, r in enumerate(ranks) if 0 < r <= nonzero[i]}
        narrowed = {i: self._narrow(i, rank) for i, rank in self._left.items()}
        self._left = {i: rank for i, rank in narrowed.items() if rank}
        for i in range(self.count):
            if i not in self._left:
                self._prefixes[i] = _NOTHING[self._word]
        if not self._left:
            return True
        self._prefix_shift, self._shift = self._shift, max(0, self._shift - 16)
        self.tally = self._empty()
        return False

    def _narrow(self, i: int, rank: int) -> int:
        """Find the bin of value i: the rank left to find inside it, or 0 when the value itself is known."""
        from_top = self.tally.from_top(i)
        position = int(np.searchsorted(from_top, rank))
        rank -= int(from_top[position - 1]) if position else 0
        width = self._prefix_shift - self._shift
        prefix = (self._prefixes[i] << width) | (BINS - 1 - position)
        self._prefixes[i] = prefix
        if self._shift == 0:
            self.result[i] = self._value(prefix)
            return 0
        side = self.tally.side[i]
        if side is None:
            return rank
        words = np.concatenate([*side, np.zeros(0, self._word)])
        inside = np.sort(words[(words >> self._word(self._shift)) == prefix])[::-1]
        self.result[i] = self._value(int(inside[rank - 1]) if rank <= len(inside) else prefix << self._shift)
        return 0

    def _value(self, word: int) -> float:
        return float(np.array(word, self._word).view(self.dtype))
