"""Exact selection by magnitude from streamed histograms: the r-th largest of millions of numbers in one or two passes.

The bits of a non-negative float, read as an integer, order like the float. The first pass counts the leading 16 of the
31 bits of a float32 (16 of 63 for float64). Differences of two bfloat16 numbers rarely have lower bits set; those that
do also go to a side list, which then decides within the bin that is hit. When the list overflows (float16 and float32
inputs), a second pass counts the low bits of that bin only; float64 takes up to four.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .histogram import BINS
from .jit import Selection

SIDE_CAPACITY = 1 << 18
"""Side-list entries kept per value and tile before a second pass is needed."""

SIDE_TOTAL = 1 << 20
"""Side-list entries kept per value over all tiles: 4 MiB."""

Window = tuple[int, int]
"""A range [first, last) of words that a pass counts by their bits."""

_NOTHING: Window = (0, 0)
"""For values that are already known."""

SAMPLED_FROM = 1 << 20
"""Entries from which on a sample says beforehand between which magnitudes a rank will lie."""

SAMPLE = 1 << 16
"""Entries of a sample."""

SAMPLE_BITS = 12
"""Leading bits by which the entries of a sample are counted: where it matters, the pass itself counts more."""

GROUP = 256
"""Bins that are summed up to find the one of a rank."""

SLACK = SAMPLE // 100
"""Entries of a sample, each way, by which a rank may be off in it: several times what chance explains."""


@dataclass
class Tally:
    """Mergeable counts of one pass: M histograms, int64, and M side lists of words, None once overflown.

    These are of the words in a window, whose bins are in ``spans``; ``nonzero`` and ``above`` int64 [M] are the entries
    that are not 0, and those above the window.
    """

    histograms: list[np.ndarray]
    side: list[list[np.ndarray] | None]
    nonzero: np.ndarray
    above: np.ndarray
    spans: Sequence[slice]
    _sums: dict[int, np.ndarray] = field(default_factory=dict[int, np.ndarray])

    def find(self, i: int, rank: int) -> tuple[int, int]:
        """The bin of value i that holds its entry of ``rank``, counted from the first of the window, and how many
        entries are larger than those of the bin; nothing may be added any more."""
        larger = int(self.above[i])
        groups = self._groups(i)
        group, larger = _from_top(groups, rank, larger)
        first = group * GROUP
        place, larger = _from_top(self.histograms[i][first : first + GROUP], rank, larger)
        return first + place, larger

    def holds(self, i: int, rank: int) -> bool:
        """Whether the entry of value i with such a rank lies in the window."""
        return bool(self.above[i] < rank <= self.above[i] + self._groups(i).sum())

    def _groups(self, i: int) -> np.ndarray:
        """The sums of every ``GROUP`` bins of value i, which take a fraction of the time of running sums."""
        if i not in self._sums:
            bins = self.histograms[i]
            self._sums[i] = np.add.reduceat(bins, np.arange(0, len(bins), GROUP)) if len(bins) else bins
        return self._sums[i]

    def add(self, other: Tally) -> None:
        """Merge the tally of another tile."""
        for mine, more in zip(self.histograms, other.histograms, strict=True):
            mine += more
        self.nonzero += other.nonzero
        self.above += other.above
        for i, (mine, more) in enumerate(zip(self.side, other.side, strict=True)):
            joined = None if mine is None or more is None else [*mine, *more]
            fits = joined is not None and sum(map(len, joined)) <= SIDE_TOTAL
            self.side[i] = joined if fits else None


def _from_top(counts: np.ndarray, rank: int, larger: int) -> tuple[int, int]:
    """Which of ``counts`` the entry of ``rank`` is among, from the last on, and how many entries there are beyond it;
    ``larger`` are beyond all of them."""
    sums = counts[::-1].cumsum()
    place = int(sums.searchsorted(rank - larger))
    return len(counts) - 1 - place, larger + (int(sums[place - 1]) if place else 0)


KEPT = 4
"""Histograms at most that are kept for the next tile: of windows, they are cleared faster than made anew."""

_kept: list[np.ndarray] = []
_keeping = threading.Lock()


def _zeros(count: int) -> np.ndarray:
    """Histograms of nothing, int64 [count, 65536]."""
    with _keeping:
        for index, spare in enumerate(_kept):
            if len(spare) == count:
                return _kept.pop(index)
    return np.zeros((count, BINS), np.int64)


def _give_back(histograms: np.ndarray, spans: Sequence[slice]) -> None:
    """Keep histograms, which hold counts in ``spans`` alone."""
    for row, span in zip(histograms, spans, strict=True):
        row[span] = 0
    with _keeping:
        _kept.append(histograms)
        del _kept[:-KEPT]


class Selector:
    """Finds the ranks of M values pass after pass.

    For each tile of a pass: a fresh ``selection()`` for the kernel, then ``add(collect(selection, counts))`` with
    what it counted. After the pass ``advance(ranks)``, until it says that ``result`` [M] is exact: infinity for rank 0,
    and 0 when the rank exceeds the number of non-zero entries.

    Before the first pass, ``expect`` may narrow it down to where a sample has the ranks; where they turn out not to be,
    there is one more pass.
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
        self._everything: Window = (1, 1 << self._prefix_shift)
        self._windows: list[Window] = [self._everything] * count
        self._tally: Tally | None = None

    @property
    def tally(self) -> Tally:
        """What this pass has counted so far."""
        if self._tally is None:
            self._tally = self._empty()
        return self._tally

    @tally.setter
    def tally(self, tally: Tally) -> None:
        self._tally = tally

    def add(self, tally: Tally) -> None:
        """Merge the tally of a tile, which is the selector's from now on."""
        if self._tally is None:
            self._tally = tally
        else:
            self._tally.add(tally)

    @property
    def _listed(self) -> bool:
        """Whether this pass fills side lists: the first one over float32."""
        return self.dtype == np.float32 and self._shift == 15

    def _empty(self) -> Tally:
        side = [[] if self._listed else None for _ in range(self.count)]
        spans = self.spans()
        histograms = [np.zeros(span.stop - span.start, np.int64) for span in spans]
        nonzero, above = np.zeros((2, self.count), np.int64)
        return Tally(histograms, side, nonzero, above, spans)

    def spans(self) -> list[slice]:
        """The bins that a word in each window can have: all of them where the window is of several prefixes."""
        spans: list[slice] = []
        bins = 1 << (self._prefix_shift - self._shift)
        for first, last in self._windows:
            low, high = first >> self._shift, (last - 1 >> self._shift) + 1 if last else 0
            spans.append(slice(low % bins, low % bins + high - low))
        return spans

    def selection(self, numel: int = SIDE_CAPACITY) -> Selection:
        """Fresh arrays for a kernel call on one tile of ``numel`` elements."""
        capacity = min(numel, SIDE_CAPACITY) if self._listed else 0
        return Selection(
            shift=self._shift,
            bin_mask=(1 << (self._prefix_shift - self._shift)) - 1,
            low_mask=(1 << self._shift) - 1 if self._listed else 0,
            windows=tuple(self._windows),
            histograms=_zeros(self.count),
            side=np.empty((self.count, capacity), self._word),
            side_counts=np.zeros(self.count, np.int64),
        )

    def collect(self, selection: Selection, counts: np.ndarray) -> Tally:
        """The tally of one kernel call, which counted ``counts`` [2 M]; nobody may use the selection any more."""
        capacity = selection.side.shape[1]
        side = [
            [row[:used].copy()] if self._listed and used <= capacity else None
            for row, used in zip(selection.side, selection.side_counts, strict=True)
        ]
        spans = self.spans()
        histograms = list(selection.histograms)
        if self._windows != [self._everything] * self.count:
            histograms = [row[span].copy() for row, span in zip(histograms, spans, strict=True)]
            _give_back(selection.histograms, spans)
        nonzero, above = counts.reshape(self.count, 2).T.copy()
        return Tally(histograms, side, nonzero, above, spans)

    def tally_of(self, rows: Sequence[np.ndarray]) -> Tally:
        """The tally of M arrays of non-negative values, without a kernel."""
        tally = self._empty()
        for i, values in enumerate(rows):
            words = np.ascontiguousarray(values, self.dtype).view(self._word)
            first, last = self._windows[i]
            tally.nonzero[i], tally.above[i] = np.count_nonzero(words), np.count_nonzero(words >= last)
            chosen = words[(words >= first) & (words < last)]
            mask = self._word((1 << (self._prefix_shift - self._shift)) - 1)
            bins = (chosen >> self._word(self._shift)) & mask
            tally.histograms[i] += np.bincount(bins.astype(np.int64), minlength=BINS)[tally.spans[i]]
            if self._listed:
                low = self._word((1 << self._shift) - 1)
                tally.side[i] = [chosen[(chosen & low) != 0]]
        return tally

    def count_nonzero(self) -> np.ndarray:
        """Non-zero entries of each value, int64 [M]; known once the first pass is complete."""
        if self.nonzero is None:
            self.nonzero = self.tally.nonzero
        return self.nonzero

    def sampling(self) -> Selection:
        """Fresh arrays for a kernel call on a sample, which counts few bins."""
        shift = self._everything[1].bit_length() - 1 - SAMPLE_BITS
        return Selection(
            shift=shift,
            bin_mask=(1 << SAMPLE_BITS) - 1,
            low_mask=0,
            windows=(self._everything,) * self.count,
            histograms=_zeros(self.count),
            side=np.empty((self.count, 0), self._word),
            side_counts=np.zeros(self.count, np.int64),
        )

    def expect(self, sample: Selection, ranks: Sequence[np.ndarray], numel: int) -> None:
        """Look only for ranks [M] of ``numel`` entries, in the first pass, around where those of a sample are.

        ``sample`` has counted ``SAMPLE`` evenly spread entries, ``ranks`` are all that will be asked for.
        """
        bins, limit = 1 << SAMPLE_BITS, self._everything[1]
        for i in range(self.count):
            from_top = np.cumsum(sample.histograms[i, bins - 1 :: -1])
            nonzero = int(from_top[-1])
            first, last = limit, 0
            for rank in ranks:
                place = int(rank[i]) * SAMPLE / numel
                if not 0 < place < nonzero + SLACK:
                    continue
                low, high = np.searchsorted(from_top, (min(place + SLACK, nonzero), max(place - SLACK, 1)))
                first = min(first, (bins - 1 - int(low)) << sample.shift if place + SLACK < nonzero else 0)
                last = max(last, (bins - int(high)) << sample.shift if place > SLACK else limit)
            self._windows[i] = (max(1, first), last) if first < last else _NOTHING
        _give_back(sample.histograms, [slice(0, bins)] * self.count)
        self._tally = None

    def advance(self, ranks: np.ndarray) -> bool:
        """Use the finished pass for the r-th largest, ``ranks`` [M]; True when every result is exact."""
        if not self._started:
            nonzero = self.count_nonzero()
            self.result = np.where(np.asarray(ranks) <= 0, np.inf, 0.0)
            self._left = {i: int(r) for i, r in enumerate(ranks) if 0 < r <= nonzero[i]}
            if not all(self.tally.holds(i, rank) for i, rank in self._left.items()):
                self._windows = [self._everything] * self.count
                self._tally = None
                return False
            self._started = True
        self._left = {i: rank for i, rank in self._left.items() if not self._narrow(i, rank)}
        for i in range(self.count):
            if i not in self._left:
                self._windows[i] = _NOTHING
        if not self._left:
            return True
        self._prefix_shift, self._shift = self._shift, max(0, self._shift - 16)
        self._tally = None
        return False

    def _narrow(self, i: int, rank: int) -> bool:
        """Find the bin of value i; whether the value itself is known."""
        place, larger = self.tally.find(i, rank)
        width = self._prefix_shift - self._shift
        prefix = (self._prefixes[i] << width) | (self.tally.spans[i].start + place)
        self._prefixes[i] = prefix
        self._windows[i] = max(1, prefix << self._shift), prefix + 1 << self._shift
        if self._shift == 0:
            self.result[i] = self._value(prefix)
            return True
        side = self.tally.side[i]
        if side is None:
            return False
        rank -= larger
        inside = np.zeros(0, self._word)
        if any(map(len, side)):
            words = np.concatenate(side)
            inside = np.sort(words[(words >> self._word(self._shift)) == prefix])[::-1]
        self.result[i] = self._value(int(inside[rank - 1]) if rank <= len(inside) else prefix << self._shift)
        return True

    def _value(self, word: int) -> float:
        return float(np.array(word, self._word).view(self.dtype))
