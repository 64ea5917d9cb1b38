"""Tensors of a base as an adapter changes them: computed range by range, with the same bits for every cut."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlmerge.checkpoint.files import InputFile
from rlmerge.checkpoint.source import Scratch, Source, combined
from rlmerge.kernels.dtypes import FLOAT32, FLOAT64, DType, decode


class Changed(Source):
    """The tensor ``name`` of ``base``, which an adapter calls ``path`` and changes from what ``ground`` holds.

    ``base`` is the tensor that a tied head shares, where the head has none of its own; ``ground`` is the same, or the
    copy that the adapter brings. Values are nominally of the base's type.
    """

    def __init__(self, name: str, path: str, base: Source, ground: Source) -> None:
        self.name = name
        self.path = path
        self.base = base
        self.ground = ground
        self.shape = base.shape
        self.dtype = FLOAT64 if ground.dtype is FLOAT64 else FLOAT32

    @property
    def nominal(self) -> DType:
        return self.base.nominal

    @property
    def parts(self) -> tuple[Source, ...]:
        """The sources that the values come from."""
        return (self.ground,)

    @property
    def where(self) -> str:
        return self.parts[-1].where

    @property
    def files(self) -> tuple[InputFile, ...]:
        return tuple(dict.fromkeys(file for part in self.parts for file in part.files))

    @property
    def scratch(self) -> Scratch:
        below = self.ground.scratch
        return Scratch(below.fixed, below.per_element + self.dtype.itemsize)

    def prefetch(self, start: int = 0, stop: int | None = None) -> None:
        self.ground.prefetch(start, stop)

    def release(self, start: int = 0, stop: int | None = None) -> None:
        self.ground.release(start, stop)

    def _decoded(self, start: int, stop: int) -> np.ndarray:
        """A writable copy of a range of the ground in the type of the values."""
        found = decode(self.ground.read(start, stop), self.ground.dtype)
        return np.array(found, self.dtype.storage)


class Replaced(Changed):
    """A parameter that was trained as a whole: ``ground`` holds its new values, in the type they were saved in."""

    def __init__(self, name: str, path: str, base: Source, value: Source) -> None:
        super().__init__(name, path, base, value)
        self.dtype = value.dtype

    @property
    def scratch(self) -> Scratch:
        return self.ground.scratch

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        return self.ground.read(start, stop)

    def fingerprint(self, whole: bool) -> bytes:
        return self.ground.fingerprint(whole)


class Untied(Replaced):
    """A table that an output head shared, now the head's own copy of it; the adapter does not change it."""


class Shifted(Changed):
    """A bias plus ``scale`` times the bias of an update."""

    def __init__(self, name: str, path: str, base: Source, ground: Source, value: Source, scale: float) -> None:
        super().__init__(name, path, base, ground)
        self.value = value
        self.scale = scale

    @property
    def parts(self) -> tuple[Source, ...]:
        return (self.ground, self.value)

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        start, stop = self.span(start, stop)
        shift = decode(self.value.read(start, stop), self.value.dtype).astype(self.dtype.storage)
        return sealed(self._decoded(start, stop) + self.dtype.storage.type(self.scale) * shift)

    def fingerprint(self, whole: bool) -> bytes:
        return combined("shift", self.parts, whole, scale=self.scale)


class TrainedRows(Changed):
    """An embedding of which some rows were trained: row ``rows[i]`` is row ``i`` of ``value`` [count, columns]."""

    def __init__(self, name: str, path: str, base: Source, ground: Source, rows: Sequence[int], value: Source) -> None:
        super().__init__(name, path, base, ground)
        self.indices = tuple(rows)
        self.value = value
        self._order = sorted(range(len(rows)), key=rows.__getitem__)
        self._sorted = np.array([rows[i] for i in self._order])

    @property
    def parts(self) -> tuple[Source, ...]:
        return (self.ground, self.value)

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        start, stop = self.span(start, stop)
        values, columns = self._decoded(start, stop), self.columns
        first, last = np.searchsorted(self._sorted, (start // columns, -(-stop // columns)))
        for place in range(first, last):
            begin = int(self._sorted[place]) * columns
            low, high = max(begin, start), min(begin + columns, stop)
            at = self._order[place] * columns - begin
            values[low - start : high - start] = decode(self.value.read(low + at, high + at), self.value.dtype)
        return sealed(values)

    def fingerprint(self, whole: bool) -> bytes:
        return combined("rows", self.parts, whole, rows=self.indices)


class TiedRows(TrainedRows):
    """The same rows of the head's stored table, which is tied to the embedding whose rows were trained."""


def sealed(values: np.ndarray) -> np.ndarray:
    """``values``, which nobody may write to any more."""
    values.flags.writeable = False
    return values
