"""Magnitudes of a task vector as a mergeable histogram: Gini, top mass, L0, moments and quantiles without the values.

The leading 16 bits of a magnitude (without its sign) index 65 536 bins. A difference of two bfloat16 numbers nearly
always lies exactly on the lower edge of its bin; the few that do not are kept one by one, so every figure is exact.
Where there are too many of those (float16, float32 and float64 checkpoints), their bins are remembered instead, and
every figure carries a rigorous bound on its error.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import numpy as np
import numpy.typing as npt

from rlmerge.frozen import frozen

BINS = 1 << 16
SIDE_LIMIT = 1 << 15
"""Single magnitudes kept before they are folded into bins. Sorting more costs more than the bound they would remove:
at most a tenth of a bfloat16 task vector lies off the edges, and half a bin is 2^-10 to 2^-9 of a magnitude."""

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@frozen
class Estimate:
    """A figure and a bound on its absolute error, 0 where it is exact."""

    value: float
    error: float = 0.0


@frozen(eq=False)
class Magnitudes:
    """The non-zero magnitudes of one task vector; ``+`` adds those of another part of it.

    ``real`` is float32 or float64. ``edges`` counts magnitudes on the lower edge of their bin, ``side`` lists others as
    words (their bits), ``within`` counts those of which only the bin is known; the bins are int64 [65536].
    """

    real: np.dtype
    edges: Counts
    side: npt.NDArray[np.unsignedinteger]
    within: Counts

    @classmethod
    def empty(cls, real: np.dtype | type = np.float32) -> Magnitudes:
        """No magnitudes."""
        kind = np.dtype(real)
        return cls(kind, np.zeros(BINS, np.int64), np.zeros(0, _word(kind)), np.zeros(BINS, np.int64))

    @classmethod
    def counted(cls, histogram: Counts, side: np.ndarray | None, real: np.dtype | type = np.float32) -> Magnitudes:
        """From a kernel's histogram [65536] and its list of words with low bits; None when that list is incomplete."""
        kind = np.dtype(real)
        if side is None:
            return cls(kind, np.zeros(BINS, np.int64), np.zeros(0, _word(kind)), histogram)
        edges = histogram - _bins_of(side, kind)
        return cls(kind, edges, side.copy(), np.zeros(BINS, np.int64))._limited()

    @classmethod
    def of(cls, tau: np.ndarray) -> Magnitudes:
        """Of finite float32 or float64 values in memory, exactly up to ``SIDE_LIMIT`` magnitudes off the edges."""
        words = np.abs(tau.reshape(-1)).view(_word(tau.dtype))
        words = words[words > 0]
        low = (words & words.dtype.type((1 << _shift(tau.dtype)) - 1)) != 0
        return cls.counted(_bins_of(words, tau.dtype), words[low], tau.dtype)._limited()

    def __add__(self, other: Magnitudes) -> Magnitudes:
        if self.real != other.real:
            return self._widened() + other._widened()
        side = np.concatenate([self.side, other.side])
        return Magnitudes(self.real, self.edges + other.edges, side, self.within + other.within)._limited()

    @property
    def count(self) -> int:
        """How many non-zero magnitudes there are."""
        return int(self.edges.sum()) + int(self.within.sum()) + len(self.side)

    @property
    def is_exact(self) -> bool:
        """Whether every magnitude is known to the bit."""
        return not self.within.any()

    @cached_property
    def table(self) -> Table:
        """The distinct magnitudes in ascending order with how often each occurs."""
        at_edge, inside = np.flatnonzero(self.edges), np.flatnonzero(self.within)
        low, high = self._edge(inside), self._edge(inside + 1)
        words, repeats = np.unique(self.side, return_counts=True)
        values = np.concatenate([self._edge(at_edge), words.view(self.real).astype(np.float64), (low + high) / 2])
        counts = np.concatenate([self.edges[at_edge], repeats, self.within[inside]])
        slack = np.concatenate([np.zeros(len(at_edge) + len(words)), (high - low) / 2])
        order = np.argsort(values, kind="stable")
        return Table(values[order], counts[order], slack[order])

    def by_exponent(self) -> dict[int, int]:
        """How many magnitudes lie in [2^e, 2^(e+1)), for each e that occurs."""
        found: dict[int, int] = {}
        table = self.table
        _, exponents = np.frexp(table.values)
        for e, c in zip(exponents.tolist(), table.counts.tolist(), strict=True):
            found[e - 1] = found.get(e - 1, 0) + c
        return dict(sorted(found.items()))

    def _edge(self, bins: np.ndarray) -> Floats:
        word = _word(self.real)
        return (bins.astype(word) << word.type(_shift(self.real))).view(self.real).astype(np.float64)

    def _limited(self) -> Magnitudes:
        if len(self.side) <= SIDE_LIMIT:
            return self
        within = self.within + _bins_of(self.side, self.real)
        return Magnitudes(self.real, self.edges, self.side[:0], within)

    def _widened(self) -> Magnitudes:
        if self.real == np.float64:
            return self
        edges, within = Magnitudes.empty(np.float64), np.zeros(BINS, np.int64)
        words = np.concatenate([self._edge(np.flatnonzero(self.edges)), self.side.view(self.real).astype(np.float64)])
        repeats = np.concatenate([self.edges[self.edges > 0], np.ones(len(self.side), np.int64)])
        inside = np.flatnonzero(self.within)
        for values, counts in ((words, repeats), (self._edge(inside), self.within[inside])):
            np.add.at(within, (values.view(np.uint64) >> np.uint64(47)).astype(np.int64), counts)
        return Magnitudes(edges.real, edges.edges, edges.side, within)


@frozen(eq=False)
class Table:
    """Distinct ``values`` ascending, their ``counts``, and how far each may be from the truth (``slack``)."""

    values: Floats
    counts: Counts
    slack: Floats

    @cached_property
    def mass(self) -> float:
        """Σ|τ|."""
        return float(self.values @ self.counts)

    @cached_property
    def mass_error(self) -> float:
        """Bound on the error of ``mass``."""
        return float(self.slack @ self.counts)

    @property
    def largest(self) -> float:
        """max |τ|, 0 when there is none."""
        return float(self.values[-1]) if len(self.values) else 0.0

    def moment(self, power: int) -> Estimate:
        """Σ|τ|^power, with the bound on its error."""
        value = float(self.values**power @ self.counts)
        high = float((self.values + self.slack) ** power @ self.counts)
        return Estimate(value, high - value)

    def gini(self, entries: int) -> Estimate:
        """Gini coefficient of |τ| over ``entries`` entries, those not in the table being 0; NaN without mass."""
        mass = self.mass
        if mass == 0.0:
            return Estimate(float("nan"))
        below = entries - int(self.counts.sum()) + np.cumsum(self.counts) - self.counts
        # The ranks b+1 .. b+c of c equal magnitudes add up to c(2b + c + 1)/2.
        lift = self.counts * (2.0 * below + self.counts - entries)
        return Estimate(float(lift @ self.values) / (entries * mass), 2 * self.mass_error / mass)

    def top_mass(self, entries: int, percent: int) -> Estimate:
        """Share of the L1 mass that the ``ceil(entries * percent / 100)`` largest magnitudes hold; NaN without mass."""
        mass = self.mass
        if mass == 0.0:
            return Estimate(float("nan"))
        left = -(-entries * percent // 100)
        descending = self.counts[::-1]
        taken = np.clip(left - (np.cumsum(descending) - descending), 0, descending)
        return Estimate(float(taken @ self.values[::-1]) / mass, 2 * self.mass_error / mass)

    def below_share_of_largest(self, entries: int, share: float = 0.01) -> Estimate:
        """Share of |τ| < ``share`` · max|τ| (seed 004, eq. 2); 0 for an all-zero vector: the inequality is strict."""
        if not len(self.values):
            return Estimate(0.0)
        bound, width = share * self.largest, share * float(self.slack[-1])
        nonzero = int(self.counts.sum())
        sure = int(self.counts[self.values < bound].sum())
        unsure = int(self.counts[np.abs(self.values - bound) < self.slack + width].sum())
        return Estimate((entries - nonzero + sure) / entries, unsure / entries)

    def kth_largest(self, rank: int) -> Estimate:
        """The magnitude of the ``rank``-th largest entry: infinity for rank 0, 0 beyond the non-zero entries."""
        if rank <= 0:
            return Estimate(float("inf"))
        position = int(np.searchsorted(np.cumsum(self.counts[::-1]), rank))
        if position >= len(self.values):
            return Estimate(0.0)
        return Estimate(float(self.values[::-1][position]), float(self.slack[::-1][position]))


def total(parts: Iterable[Magnitudes]) -> Magnitudes:
    """All of ``parts`` together."""
    result = Magnitudes.empty()
    for index, part in enumerate(parts):
        result = part if index == 0 else result + part
    return result


def _word(real: np.dtype) -> np.dtype:
    return np.dtype(np.uint32 if real == np.float32 else np.uint64)


def _shift(real: np.dtype) -> int:
    return 15 if real == np.float32 else 47


def _bins_of(words: np.ndarray, real: np.dtype) -> Counts:
    return np.bincount((words >> words.dtype.type(_shift(real))).astype(np.int64), minlength=BINS)
