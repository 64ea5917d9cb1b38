"""Chains of published weight deltas: a tensor of the base changed by one version after the other.

What trainers publish to their inference engines can only be read from front to back. The first read of a tensor
therefore decodes all of it, in pieces, into a scratch file on disk, and checks it against each version's checksum on
the way; when all of it has been released the file goes. `rlmerge delta extract` turns a chain into one file that can be
read anywhere.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from rlmerge.checkpoint.files import InputFile
from rlmerge.checkpoint.formats.delta_zstd import Check, Spool, Stream, frame_window
from rlmerge.checkpoint.source import Scratch, Source, combined
from rlmerge.errors import CheckpointError
from rlmerge.frozen import frozen
from rlmerge.kernels.dtypes import DType

if TYPE_CHECKING:
    from rlmerge.checkpoint.model import Checkpoint

_PIECE = 1 << 20
"""Elements decoded at a time."""

_PLACES = 1 << 16
"""Positions read at a time."""

_AGAIN = "It is damaged or belongs to another base; publish or download it again."


class Cursor(Protocol):
    """Goes through a tensor once, changing its bytes."""

    def apply(self, first: int, piece: np.ndarray) -> None:
        """Change ``piece``, uint8, the tensor's bytes from ``first`` on."""

    def finish(self) -> None:
        """CheckpointError if something is left to change after the last piece."""


class Patch(ABC):
    """How one version changes one tensor."""

    @property
    @abstractmethod
    def parts(self) -> tuple[Source, ...]:
        """What it is stored in."""

    @property
    def where(self) -> str:
        """The place to name in a message."""
        return self.parts[0].where

    @property
    def memory(self) -> int:
        """Bytes that a cursor holds."""
        return _PLACES * 32

    @property
    def settings(self) -> tuple[object, ...]:
        """What decides the result beside the bytes of ``parts``."""
        return (type(self).__name__,)

    @abstractmethod
    def begin(self, base: Source) -> Cursor:
        """A cursor at the start of a tensor like ``base``; CheckpointError if the patch cannot be one of it."""


@frozen
class Link:
    """One version's part in a tensor: its number, the change, and the digest of the changed bytes where stated."""

    version: int
    patch: Patch
    check: Check | None


class PatchedSource(Source):
    """A tensor of the base after the changes of several versions."""

    def __init__(self, base: Source, links: Sequence[Link]) -> None:
        self.name = base.name
        self.dtype = base.dtype
        self.shape = base.shape
        self.base = base
        self.links = tuple(links)
        self._lock = threading.Lock()
        self._decoded: np.ndarray | None = None
        self._released = 0
        self._memory = sum(link.patch.memory for link in self.links)

    @property
    def nominal(self) -> DType:
        return self.base.nominal

    @property
    def where(self) -> str:
        return self.links[-1].patch.where

    @property
    def scratch(self) -> Scratch:
        # While it is decoded: a piece and its reading from the base.
        piece = _PIECE * (2 * self.dtype.itemsize + self.base.scratch.per_element)
        return Scratch(int(piece) + self.base.scratch.fixed + self._memory)

    @property
    def files(self) -> tuple[InputFile, ...]:
        parts = [part for link in self.links for part in link.patch.parts]
        return tuple(dict.fromkeys(file for part in (self.base, *parts) for file in part.files))

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        start, stop = self.span(start, stop)
        with self._lock:
            if self._decoded is None:
                spool = Spool(self.nbytes)
                self.replay(spool.write)
                self._decoded = spool.array()
            size = self.dtype.itemsize
            return self._decoded[start * size : stop * size].view(self.dtype.storage)

    def release(self, start: int = 0, stop: int | None = None) -> None:
        start, stop = self.span(start, stop)
        with self._lock:
            self._released += stop - start
            if self._released >= self.numel:
                self._decoded = None
                self._released = 0

    def fingerprint(self, whole: bool) -> bytes:
        parts = [part for link in self.links for part in link.patch.parts]
        settings = [link.patch.settings for link in self.links]
        return combined("patched", [self.base, *parts], whole, settings=settings)

    def replay(self, take: Callable[[np.ndarray], object]) -> None:
        """Decode from front to back and hand the bytes to ``take`` in pieces.

        CheckpointError if a version is damaged, or does not give the bytes that it states.
        """
        cursors = [(link, link.patch.begin(self.base), link.check and link.check.begin()) for link in self.links]
        for start in range(0, self.numel, _PIECE):
            stop = min(self.numel, start + _PIECE)
            piece = np.array(self.base.read(start, stop)).view(np.uint8)
            for _, cursor, hasher in cursors:
                cursor.apply(start * self.dtype.itemsize, piece)
                if hasher is not None:
                    hasher.update(piece.data)
            take(piece)
            self.base.release(start, stop)
        for position, (link, cursor, hasher) in enumerate(cursors):
            cursor.finish()
            if hasher is not None and link.check is not None and hasher.hexdigest() != link.check.digest:
                raise self._mismatch(link, position)

    def _mismatch(self, link: Link, position: int) -> CheckpointError:
        what = f"version {link.version} does not give the bytes whose {link.check and link.check.algorithm} it states"
        hint = "The base is not the one it was made from, or the file is damaged."
        if position:
            hint = "It is damaged, or a version between it and the one before is missing."
        return CheckpointError(what, where=link.patch.where, hint=hint)


@frozen
class XorPatch(Patch):
    """The bytes of the tensor, exclusive-ored with those of the base and compressed."""

    payload: Source

    @property
    def parts(self) -> tuple[Source, ...]:
        return (self.payload,)

    @property
    def memory(self) -> int:
        return _PIECE * 8 + frame_window(self.payload)

    def begin(self, base: Source) -> Cursor:
        return _Xor(Stream(self.payload))


class _Xor:
    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def apply(self, first: int, piece: np.ndarray) -> None:
        np.bitwise_xor(piece, self._stream.read(len(piece)), out=piece)

    def finish(self) -> None:
        self._stream.finish()


@dataclass
class Places:
    """New values for some positions, in order: a cursor.

    ``positions(n)`` gives the next n of ``count`` positions, int64 in units of ``size`` bytes, ``values(n)`` their new
    bytes. They must increase and stay below ``limit``. ``end`` is called after the last.
    """

    count: int
    size: int
    limit: int
    positions: Callable[[int], np.ndarray]
    values: Callable[[int], np.ndarray]
    where: str
    end: Callable[[], object] = lambda: None
    _waiting: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    _new: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint8))
    _last: int = -1

    def apply(self, first: int, piece: np.ndarray) -> None:
        word = np.dtype(f"u{self.size}")
        begin, words = first // self.size, piece.view(word)
        while True:
            if not len(self._waiting):
                if not self.count:
                    return
                self._fetch(word)
            now = int(np.searchsorted(self._waiting, begin + len(words)))
            words[self._waiting[:now] - begin] = self._new[:now]
            self._waiting, self._new = self._waiting[now:], self._new[now:]
            if len(self._waiting):
                return

    def finish(self) -> None:
        if self.count or len(self._waiting):
            raise self._wrong()
        self.end()

    def _fetch(self, word: np.dtype) -> None:
        size = min(self.count, _PLACES)
        places = self.positions(size)
        if int(places[0]) <= self._last or int(places[-1]) >= self.limit or (np.diff(places) <= 0).any():
            raise self._wrong()
        self._waiting, self._new = places, self.values(size).view(word)
        self._last = int(places[-1])
        self.count -= size

    def _wrong(self) -> CheckpointError:
        what = f"its positions do not increase within the {self.limit} of the tensor"
        return CheckpointError(what, where=self.where, hint=_AGAIN)


@frozen
class Version:
    """A published version: its number, the one it changes (None where it does not say), and where it lies."""

    number: int
    changes: int | None
    root: Path


def linked(versions: Mapping[int, Version], last: int, full: Collection[int] = ()) -> list[Version]:
    """The versions up to ``last``, each changing the one before; CheckpointError if one between them is missing.

    The first changes the base: a version that is there in ``full``, or older than all that are there.
    """
    found = [versions[last]]
    while (before := found[0].changes) in versions and before is not None:
        if before >= found[0].number:
            what = f"version {found[0].number} says that it changes version {before}"
            raise CheckpointError(what, where=str(found[0].root), hint=_AGAIN)
        found.insert(0, versions[before])
    earlier = [number for number in versions if number < found[0].number]
    if earlier and found[0].changes not in full:
        what = f"changes version {found[0].changes}, which is missing; {max(earlier)} is the last before it"
        hint = "Bring the missing version back, or name one before the gap; what was lost cannot be skipped."
        raise CheckpointError(what, where=str(found[0].root), hint=hint)
    return found


Patches = Mapping[str, tuple[Patch, Check | None]]
"""What one version changes: patches by tensor, each with the digest of the changed bytes where it is stated."""


def patched(base: Checkpoint, changes: Sequence[tuple[int, Patches]]) -> dict[str, Source]:
    """The tensors of ``base`` after ``changes``, (version, patches by tensor) in order.

    CheckpointError if the base lacks a tensor that is changed.
    """
    links: dict[str, list[Link]] = {}
    for version, patches in changes:
        for name, (patch, check) in patches.items():
            if name not in base.tensors:
                what = f"changes tensor {name!r}, which {base.reference} lacks"
                raise CheckpointError(what, where=patch.where, hint="Name the model that the training began with.")
            links.setdefault(name, []).append(Link(version, patch, check))
    return {name: PatchedSource(x, links[name]) if name in links else x for name, x in base.tensors.items()}
