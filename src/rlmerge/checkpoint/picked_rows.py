"""A table whose rows come from other tables: copied, mixed, the mean of all others, or zero."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np

from rlmerge.checkpoint.files import InputFile
from rlmerge.checkpoint.source import Scratch, Source, combined
from rlmerge.errors import CheckpointError
from rlmerge.frozen import frozen
from rlmerge.kernels.dtypes import FLOAT32, FLOAT64, MERGEABLE, DType, decode

ZERO, MIX, PADDING = -1, -2, -3
"""In place of a table: a row of zeros, one of ``Rows.mixes``, the mean of all rows that are no padding."""

_BLOCK = 1 << 16
"""Elements whose mean is taken at a time."""

_ASK = 256
"""Runs of one range that are asked for ahead or given back; beyond, the kernel's own guesses serve as well."""


@frozen(eq=False)
class Mixes:
    """Weighted sums of rows, compressed: sum i takes the entries [start[i], start[i+1]) of the other arrays.

    ``table`` int [n] and ``row`` int [n] name a row, ``weight`` float64 [n] multiplies it; the sum of mix i is divided
    by ``divisor`` float64 [mixes]. Terms are added in their order.
    """

    start: np.ndarray
    table: np.ndarray
    row: np.ndarray
    weight: np.ndarray
    divisor: np.ndarray


NO_MIXES = Mixes(*(np.zeros(n, kind) for n, kind in ((1, int), (0, int), (0, int), (0, float), (0, float))))


@frozen(eq=False)
class Rows:
    """Where each of R rows comes from: ``table`` int [R], an index of the sources or one of the constants above, and
    ``row`` int [R], a row of that source or the number of a mix."""

    table: np.ndarray
    row: np.ndarray
    mixes: Mixes = NO_MIXES

    @cached_property
    def runs(self) -> np.ndarray:
        """First rows of the runs in which consecutive rows of one source follow one another, int [runs]."""
        if not len(self.table):
            return np.zeros(0, int)
        follows = (self.table[1:] == self.table[:-1]) & (self.row[1:] == self.row[:-1] + 1) & (self.table[1:] >= 0)
        return np.flatnonzero(np.concatenate(([True], ~follows)))

    @cached_property
    def used(self) -> tuple[int, ...]:
        """The sources that rows come from."""
        return tuple(int(k) for k in np.union1d(self.table[self.table >= 0], self.mixes.table))

    @property
    def computes(self) -> bool:
        """Whether a row is more than a copy."""
        return bool(np.isin(self.table, (MIX, PADDING)).any())

    def digest(self) -> bytes:
        """What the mapping is, for fingerprints."""
        mixes = self.mixes
        parts = (self.table, self.row, mixes.start, mixes.table, mixes.row, mixes.weight, mixes.divisor)
        return b"".join(np.ascontiguousarray(part).tobytes() for part in parts)


class PickedRows(Source):
    """The table that ``rows`` picks from ``sources``, called as, and thought to be stored as, ``own``, one of them.

    Rows are copied in the sources' own type where all are copies in one type. Otherwise values are float32 (float64
    where a source is). A mixed row is summed in that type; the padding row is a mean in float64 over all rows that are
    not padding, in order, rounded once. The bits depend on neither range nor machine.
    CheckpointError if rows would have to be computed from a type that holds no plain numbers, or differ in length.
    """

    def __init__(self, own: Source, sources: Sequence[Source], rows: Rows) -> None:
        self.name = own.name
        self.shape = (len(rows.table), *own.shape[1:])
        self._own, self._sources, self._rows = own, tuple(sources), rows
        used = [self._sources[k] for k in rows.used] or [own]
        wrong = next((source for source in used if source.shape[1:] != own.shape[1:]), None)
        if wrong is not None:
            what = f"has rows of shape {list(wrong.shape[1:])}, but {own.where} has {list(own.shape[1:])}"
            raise CheckpointError(what, where=wrong.where, hint="Vocabularies are aligned between models of one width.")
        types = {source.dtype for source in used}
        self.dtype = used[0].dtype
        if rows.computes or len(types) > 1:
            packed = next((source for source in used if source.dtype not in MERGEABLE), None)
            if packed is not None:
                hint = "Convert quantised models to bfloat16 first."
                what = f"is stored as {packed.dtype.name}; rows for new tokens cannot be computed from it"
                raise CheckpointError(what, where=packed.where, hint=hint)
            self.dtype = FLOAT64 if FLOAT64 in types else FLOAT32
        self._width = own.numel // own.shape[0] if own.shape[0] else 0
        self._padding: np.ndarray | None = None
        self._lock = threading.Lock()

    @property
    def nominal(self) -> DType:
        return self._own.nominal

    @property
    def where(self) -> str:
        return self._own.where

    @property
    def scratch(self) -> Scratch:
        """The result and what a run is decoded to; a few rows, and for a mean a block of them in two types."""
        parts = [self._sources[k].scratch for k in self._rows.used]
        fixed = self._width * 4 * 8 + (max(_BLOCK, self._width) * 20 if (self._rows.table == PADDING).any() else 0)
        beneath = max((part.per_element for part in parts), default=0.0)
        return Scratch(fixed + max((part.fixed for part in parts), default=0), 2 * self.dtype.itemsize + beneath)

    @property
    def files(self) -> tuple[InputFile, ...]:
        return tuple(dict.fromkeys(file for k in self._rows.used for file in self._sources[k].files))

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        start, stop = self.span(start, stop)
        pieces = list(self._pieces(start, stop))
        if len(pieces) == 1 and pieces[0][0] >= 0 and self._sources[pieces[0][0]].dtype is self.dtype:
            k, _, first, last = pieces[0]
            return self._sources[k].read(first, last)
        result = np.zeros(stop - start, self.dtype.storage)
        at = 0
        for k, row, first, last in pieces:
            if k == MIX:
                result[at : at + last - first] = self._mix(row)[first:last]
            elif k == PADDING:
                result[at : at + last - first] = self._mean()[first:last]
            elif k != ZERO:
                result[at : at + last - first] = self._values(k, first, last)
            at += last - first
        result.flags.writeable = False
        return result

    def prefetch(self, start: int = 0, stop: int | None = None) -> None:
        for k, first, last in self._copied(start, stop):
            self._sources[k].prefetch(first, last)

    def release(self, start: int = 0, stop: int | None = None) -> None:
        for k, first, last in self._copied(start, stop):
            self._sources[k].release(first, last)

    def fingerprint(self, whole: bool) -> bytes:
        return combined("rows", [*(self._sources[k] for k in self._rows.used), self._rows.digest()], whole)

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
        """(source or constant, row, first, last) of a flat range: flat indices of a source, columns of another row."""
        width, rows = self._width, self._rows
        if start == stop:
            return
        begin, end = start // width, -(-stop // width)
        runs = rows.runs
        at = int(np.searchsorted(runs, begin, side="right")) - 1
        while begin < end:
            following = int(runs[at + 1]) if at + 1 < len(runs) else len(rows.table)
            last = min(end, following)
            k, row = int(rows.table[begin]), int(rows.row[begin])
            head, tail = max(0, start - begin * width), min(last * width, stop) - begin * width
            base = row * width if k >= 0 else 0
            yield k, row, base + head, base + tail
            begin, at = last, at + 1

    def _copied(self, start: int, stop: int | None) -> list[tuple[int, int, int]]:
        pieces = self._pieces(*self.span(start, stop))
        found: list[tuple[int, int, int]] = []
        for k, _, first, last in pieces:
            if k >= 0:
                found.append((k, first, last))
            if len(found) > _ASK:
                return []
        return found

    def _values(self, k: int, first: int, last: int) -> np.ndarray:
        """Elements of a source as this table stores them."""
        source = self._sources[k]
        values = source.read(first, last)
        return values if source.dtype is self.dtype else decode(values, source.dtype).astype(self.dtype.storage)

    def _mix(self, number: int) -> np.ndarray:
        mixes, width = self._rows.mixes, self._width
        total = np.zeros(width, self.dtype.storage)
        for entry in range(int(mixes.start[number]), int(mixes.start[number + 1])):
            row = int(mixes.row[entry]) * width
            total += self._values(int(mixes.table[entry]), row, row + width) * total.dtype.type(mixes.weight[entry])
        return total / total.dtype.type(mixes.divisor[number])

    def _mean(self) -> np.ndarray:
        """The mean of all rows that are not padding, [width]; computed once."""
        with self._lock:
            if self._padding is None:
                kept = np.flatnonzero(self._rows.table != PADDING)
                total = np.zeros(self._width, np.float64)
                step = max(1, _BLOCK // self._width)
                for group in (kept[i : i + step] for i in range(0, len(kept), step)):
                    total += self._sum(group)
                self._padding = (total / max(1, len(kept))).astype(self.dtype.storage)
        return self._padding

    def _sum(self, group: np.ndarray) -> np.ndarray:
        """The sum of some rows, [width] in float64."""
        total = np.zeros(self._width, np.float64)
        width, begin = self._width, 0
        # Padding may lie between two rows of the group; each stretch without any is read at once.
        for end in [*(np.flatnonzero(np.diff(group) != 1) + 1), len(group)]:
            first, last = int(group[begin]) * width, (int(group[end - 1]) + 1) * width
            total += np.add.reduce(self.read(first, last).astype(np.float64).reshape(-1, width), axis=0)
            self.release(first, last)
            begin = int(end)
        return total
