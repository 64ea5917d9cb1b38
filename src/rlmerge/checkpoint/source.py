"""Where the values of a tensor come from: the one protocol that merging, inspection and fingerprints read through.

A file extent is the first kind. Others compute what they give from further sources (pieces of a sharded tensor, a
low-rank update of a base, rows picked from another table, scaled blocks); whoever reads them must not notice.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import xxhash

from rlmerge.checkpoint.files import InputFile
from rlmerge.kernels.dtypes import DType

WHOLE = 64 * 2**20
"""Bytes up to which a model is fingerprinted completely."""

BLOCK = 4096
SPACING = 16 * 2**20
_PIECE = 4 * 2**20


class Scratch(NamedTuple):
    """Anonymous memory that a read takes beside what it returns: bytes for the tensor, and bytes an element of a tile.

    Views of mapped files take none; an array that is made for the reader counts ``per_element``.
    """

    fixed: int = 0
    per_element: float = 0.0


NO_SCRATCH = Scratch()


class Place(NamedTuple):
    """A byte of a file."""

    file: InputFile
    offset: int


class Source(ABC):
    """The values of one tensor, readable from any thread.

    ``name`` is the tensor's name in its model, ``dtype`` what ``read`` gives, ``shape`` the tensor's.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]

    @property
    def nominal(self) -> DType:
        """The type the model is thought to be stored in, where values are computed in a wider one."""
        return self.dtype

    @property
    def is_there(self) -> bool:
        """Whether the values can be read already; those of a stage that is only planned cannot."""
        return True

    @property
    def numel(self) -> int:
        """Elements of the tensor."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of storage that reading the whole tensor takes."""
        return self.numel * self.dtype.itemsize

    @property
    def rows(self) -> int:
        """Product of all dimensions but the last; 1 for vectors and scalars."""
        return math.prod(self.shape[:-1])

    @property
    def columns(self) -> int:
        """Length of the last dimension; 1 for a scalar."""
        return self.shape[-1] if self.shape else 1

    @property
    @abstractmethod
    def where(self) -> str:
        """The place to name in a message: files and tensor."""

    @property
    def scratch(self) -> Scratch:
        """Memory that reading takes."""
        return NO_SCRATCH

    @property
    @abstractmethod
    def files(self) -> tuple[InputFile, ...]:
        """Every file that values come from."""

    @property
    def is_remote(self) -> bool:
        """Whether values come over a network."""
        return any(file.is_remote for file in self.files)

    @abstractmethod
    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Elements [start, stop) of the flattened tensor, [stop - start] in the storage type of ``dtype``, read-only.

        The same element has the same bits whatever the range. CheckpointError if what is on disk cannot be read;
        ValueError for a range outside the tensor.
        """

    def place(self, start: int) -> Place | None:
        """Where in a file of this machine the elements from ``start`` on lie in one piece; None where they are made."""
        return None

    def prefetch(self, start: int = 0, stop: int | None = None) -> None:  # noqa: B027
        """Start to load a range that will be needed; returns without waiting for it."""

    def release(self, start: int = 0, stop: int | None = None) -> None:  # noqa: B027
        """Give back what a finished range holds."""

    @abstractmethod
    def fingerprint(self, whole: bool) -> bytes:
        """16 bytes that identify the values: of all of them, or where not ``whole`` of evenly spaced samples."""

    def span(self, start: int, stop: int | None) -> tuple[int, int]:
        """[start, stop) with its default filled in; ValueError if it is no range of the tensor."""
        stop = self.numel if stop is None else stop
        if not 0 <= start <= stop <= self.numel:
            raise ValueError(f"[{start}, {stop}) is not a range of the {self.numel} elements of {self.name}")
        return start, stop


@dataclass(slots=True, unsafe_hash=True)  # not frozen, which takes thrice as long to make: models have 100,000
class Extent(Source):
    """A tensor that lies in one file: its bytes [start, stop), row-major, little-endian."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    file: InputFile
    start: int
    stop: int

    @property
    def nbytes(self) -> int:
        return self.stop - self.start

    @property
    def where(self) -> str:
        return f"{self.file}: {self.name}"

    @property
    def scratch(self) -> Scratch:
        size = self.dtype.itemsize
        return Scratch(per_element=size) if self.start % size or self.file.is_remote else NO_SCRATCH

    @property
    def files(self) -> tuple[InputFile, ...]:
        return (self.file,)

    @property
    def is_remote(self) -> bool:
        return self.file.is_remote

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        first, last = self._bytes(start, stop)
        storage = self.dtype.storage
        view = self.file.read(first, last, self.name)
        if first % storage.itemsize:
            # A foreign writer placed the tensor at an offset from which its type cannot be loaded.
            view = view.copy()
            view.flags.writeable = False
        return view.view(storage)

    def place(self, start: int) -> Place | None:
        return None if self.file.is_remote else Place(self.file, self.start + start * self.dtype.itemsize)

    def prefetch(self, start: int = 0, stop: int | None = None) -> None:
        self.file.prefetch(*self._bytes(start, stop))

    def release(self, start: int = 0, stop: int | None = None) -> None:
        self.file.release(*self._bytes(start, stop))

    def fingerprint(self, whole: bool) -> bytes:
        return self.file.remembered((self.start, self.stop, whole), lambda: self._digest(whole))

    def _digest(self, whole: bool) -> bytes:
        digest = xxhash.xxh3_128()
        ranges = ((self.start + offset, self.start + offset + length) for offset, length in blocks(self.nbytes, whole))
        self.file.feed(ranges, digest.update)
        return digest.digest()

    def _bytes(self, start: int, stop: int | None) -> tuple[int, int]:
        start, stop = self.span(start, stop)
        return self.start + start * self.dtype.itemsize, self.start + stop * self.dtype.itemsize


class ArraySource(Source):
    """A tensor that lies in memory: a contiguous array of storage values, and the ``label`` of its model."""

    def __init__(self, name: str, dtype: DType, array: np.ndarray, label: str) -> None:
        self.name = name
        self.dtype = dtype
        self.shape = array.shape
        self.label = label
        self._flat = np.ascontiguousarray(array).reshape(-1)

    @property
    def where(self) -> str:
        return f"{self.label}: {self.name}"

    @property
    def files(self) -> tuple[InputFile, ...]:
        return ()

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        start, stop = self.span(start, stop)
        return self._flat[start:stop]

    def fingerprint(self, whole: bool) -> bytes:
        return xxhash.xxh3_128_digest(self._flat.tobytes())


def blocks(nbytes: int, whole: bool) -> Iterable[tuple[int, int]]:
    """(offset, length) of the bytes of a tensor that are hashed to identify it: everything, or spaced samples."""
    count = max(4, -(-nbytes // SPACING) + 1)
    if whole or nbytes <= count * BLOCK:
        return ((offset, min(_PIECE, nbytes - offset)) for offset in range(0, nbytes, _PIECE))
    last = nbytes - BLOCK
    return ((last * index // (count - 1), BLOCK) for index in range(count))


def digest_values(source: Source, whole: bool) -> bytes:
    """The fingerprint that the values of ``source`` would have if they lay in one piece of a file."""
    digest = xxhash.xxh3_128()
    size = source.dtype.itemsize
    for offset, length in blocks(source.nbytes, whole):
        first, last = offset // size, -(-(offset + length) // size)
        values = source.read(first, last).view(np.uint8)
        digest.update(values[offset - first * size :][:length].tobytes())
        source.release(first, last)
    return digest.digest()


def combined(kind: str, parts: Iterable[Source | bytes], whole: bool, **settings: object) -> bytes:
    """The fingerprint of a source that computes its values from ``parts`` in a way that ``settings`` fix."""
    digest = xxhash.xxh3_128(json.dumps([kind, settings], sort_keys=True, default=str).encode())
    for part in parts:
        digest.update(part if isinstance(part, bytes) else part.fingerprint(whole))
    return digest.digest()
