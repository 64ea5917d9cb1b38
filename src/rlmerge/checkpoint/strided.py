"""A tensor whose elements lie at regular steps of another, such as a transposed or sliced one that torch saved."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import as_strided

from rlmerge.checkpoint.compose import cut
from rlmerge.checkpoint.files import InputFile
from rlmerge.checkpoint.source import Scratch, Source, digest_values
from rlmerge.kernels.dtypes import DType


class Strided(Source):
    """Element (i, j, …) is element ``offset`` + i · stride[0] + j · stride[1] + … of the vector ``storage``.

    ValueError if that leads outside of it, or the same element is meant to stand for several.
    """

    def __init__(self, name: str, storage: Source, offset: int, shape: Sequence[int], stride: Sequence[int]) -> None:
        self.name = name
        self.dtype: DType = storage.dtype
        self.shape = tuple(shape)
        self._storage = storage
        self._offset = offset
        self._stride = tuple(stride)
        if offset < 0 or any(step <= 0 < n - 1 for n, step in zip(self.shape, self._stride, strict=True)):
            raise ValueError("steps of a tensor must be positive")
        if self.numel and offset + self._reach(self.shape, self._stride) > storage.numel:
            raise ValueError("a tensor must lie inside its storage")

    @property
    def where(self) -> str:
        return f"{', '.join(map(str, self.files))}: {self.name}"

    @property
    def scratch(self) -> Scratch:
        return Scratch(self._storage.scratch.fixed, self.dtype.itemsize)

    @property
    def files(self) -> tuple[InputFile, ...]:
        return self._storage.files

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        start, stop = self.span(start, stop)
        values = np.empty(stop - start, self.dtype.storage)
        done = 0
        for first, last, shape, stride in self._boxes(start, stop):
            given = self._storage.read(first, last)
            box = as_strided(given, shape, [step * given.itemsize for step in stride])
            values[done : done + box.size].reshape(shape)[...] = box
            done += box.size
        values.flags.writeable = False
        return values

    def prefetch(self, start: int = 0, stop: int | None = None) -> None:
        for first, last, _, _ in self._boxes(*self.span(start, stop)):
            self._storage.prefetch(first, last)

    def release(self, start: int = 0, stop: int | None = None) -> None:
        for first, last, _, _ in self._boxes(*self.span(start, stop)):
            self._storage.release(first, last)

    def fingerprint(self, whole: bool) -> bytes:
        return digest_values(self, whole)

    def _boxes(self, start: int, stop: int) -> list[tuple[int, int, tuple[int, ...], tuple[int, ...]]]:
        """(first, last) of the storage, shape and steps of each box that the range consists of."""
        if start == stop:
            return []
        whole, steps = self.shape or (1,), self._stride or (1,)
        found: list[tuple[int, int, tuple[int, ...], tuple[int, ...]]] = []
        for prefix, low, high, _ in cut(whole, start, stop):
            axis = len(prefix)
            first = self._offset + sum(i * step for i, step in zip((*prefix, low), steps, strict=False))
            shape, stride = (high - low, *whole[axis + 1 :]), steps[axis:]
            found.append((first, first + self._reach(shape, stride), shape, stride))
        return found

    @staticmethod
    def _reach(shape: Sequence[int], stride: Sequence[int]) -> int:
        """Elements of the storage from the first to behind the last that are used."""
        return 1 + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
