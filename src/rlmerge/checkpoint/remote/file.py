"""A file of a remote store behind the interface of a local one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from rlmerge.checkpoint.files import AGAIN, InputFile
from rlmerge.checkpoint.remote.link import LINK, PIECE
from rlmerge.checkpoint.remote.store import Changed, ObjectStamp, Store, retried
from rlmerge.errors import RunError

Value = TypeVar("Value")

FRESH = 10.0
"""Seconds for which a file counts as unchanged since the store last answered for this edition of it."""

_SAMPLERS = 16


class RemoteFile(InputFile):
    """A weights file on another machine, ``name`` in ``store``; ``path`` is the placeholder that stands for it here.

    Every request asks for the edition that was listed, so that bytes of two editions are never mixed: RunError when the
    file has changed, CheckpointError when the store can no longer be reached. Nothing of it is kept here.
    """

    def __init__(self, path: Path, store: Store, name: str, stamp: ObjectStamp) -> None:
        self.path = path
        self.stamp = stamp
        self.store = store
        self.name = name
        self.beginning: bytes | None = None
        """Its first bytes, where they were fetched with those of other files, until the header was read from them."""
        self._seen = time.monotonic()
        self._known: dict[Hashable, bytes] = {}
        self._lock = threading.Lock()

    def __str__(self) -> str:
        return f"{self.store.address}/{self.name}"

    @property
    def is_remote(self) -> bool:
        return True

    def read(self, first: int, last: int, what: str = "") -> np.ndarray:
        return LINK.read(self, first, last) if first < last else np.empty(0, np.uint8)

    def copy(self, first: int, last: int) -> bytes:
        kept = self.beginning
        if kept is not None and first < len(kept):
            if first:  # A header's length is asked for first, from 0 on, and then the header itself.
                self.beginning = None
            if last <= len(kept):
                return kept[first:last]
            return kept[first:] + self.fetch(len(kept), last).tobytes()
        return b"".join(self.copies((at, min(last, at + PIECE)) for at in range(first, last, PIECE)))

    def copies(self, ranges: Iterable[tuple[int, int]]) -> Iterator[bytes]:
        wanted = list(ranges)
        if len(wanted) < 2:
            return (self.fetch(*each).tobytes() for each in wanted)
        return self._together(wanted)

    def feed(self, ranges: Iterable[tuple[int, int]], take: Callable[[bytes | memoryview], object]) -> None:
        for piece in self.copies(ranges):
            take(piece)

    def _together(self, ranges: list[tuple[int, int]]) -> Iterator[bytes]:
        """Several ranges, a few at a time."""
        with ThreadPoolExecutor(min(_SAMPLERS, len(ranges)), "rlmerge-sample") as pool:
            for start in range(0, len(ranges), _SAMPLERS):
                part = ranges[start : start + _SAMPLERS]
                yield from (data.tobytes() for data in pool.map(lambda each: self.fetch(*each), part))

    def remembered(self, key: Hashable, find: Callable[[], bytes]) -> bytes:
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = find()
        return found

    def prefetch(self, first: int, last: int) -> None:
        if first < last:
            LINK.prefetch(self, first, last)

    def release(self, first: int, last: int) -> None:
        """What was read goes when its room is needed."""

    def close(self) -> None:
        LINK.forget(self)

    def check(self) -> None:
        """RunError if the store holds another edition now; asked again only some seconds after its last answer."""
        with self._lock:
            if time.monotonic() - self._seen < FRESH:
                return
            found = retried(lambda: self.store.stat(self.name), str(self))
            if found is None:
                raise RunError("is no longer there (deleted from the store)", where=str(self), hint=AGAIN)
            if found != self.stamp:
                raise self._changed()
            self._seen = time.monotonic()

    def fetch(self, first: int, last: int) -> np.ndarray:
        """The bytes [first, last) from the store, uint8, whatever is on its way already."""
        assert isinstance(self.stamp, ObjectStamp)
        stamp = self.stamp
        try:
            data = retried(lambda: self.store.get(self.name, stamp, first, last), str(self))
        except Changed:
            raise self._changed() from None
        self._seen = time.monotonic()
        return data
