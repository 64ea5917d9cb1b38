"""Ranges of remote files on their way here: many requests at a time, in the order of need, in bounded memory.

What a run will read is asked for ahead, tile by tile. A range that has to wait for its turn grows by the ranges that
follow it in its file, so that requests are small while the link is idle and large once it is busy, and no byte is
fetched that nobody asked for. What was read stays as long as there is room: statistics read a tensor before its merge.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from queue import SimpleQueue
from typing import Protocol

import numpy as np

CONNECTIONS = 32
"""Requests in flight."""

CAPACITY = 128 * 2**20
"""Bytes that may be on their way or wait for their reader, where nobody sets another bound."""

PIECE = 8 * 2**20
"""Bytes of the largest request: what object stores advise for throughput."""

ALIGNMENT = 8
"""Bytes of the widest element type."""


class Remote(Protocol):
    """A file whose ranges are fetched; ``fetch`` tries again by itself and raises what no further try would change."""

    def fetch(self, first: int, last: int) -> np.ndarray:
        """The bytes [first, last), uint8."""
        ...


class _Span:
    """A range of a file: waiting, started, or here."""

    __slots__ = ("data", "error", "file", "first", "held", "last", "read", "started")

    def __init__(self, file: Remote, first: int, last: int) -> None:
        self.file = file
        self.first = first
        self.last = last
        self.started = False
        self.held = False
        self.read = 0
        self.data: np.ndarray | None = None
        self.error: BaseException | None = None

    @property
    def size(self) -> int:
        return self.last - self.first

    @property
    def is_here(self) -> bool:
        return self.data is not None or self.error is not None


class Link:
    """The requests of one process. Its threads are daemons: nobody waits for them at the end."""

    def __init__(self, connections: int = CONNECTIONS, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self.held = 0
        self._flying = 0
        self._connections = connections
        self._threads = 0
        self._active = 0
        self._changed = threading.Condition()
        self._work: SimpleQueue[_Span] = SimpleQueue()
        self._spans: dict[Remote, list[_Span]] = {}
        self._waiting: deque[_Span] = deque()
        self._spent: dict[_Span, None] = {}

    def prefetch(self, file: Remote, first: int, last: int) -> None:
        """Ask for a range that will be read; returns at once."""
        with self._changed:
            for span in self._overlapping(file, first, last):
                if span in self._spent:
                    del self._spent[span]
                    span.read = 0
            for begin, end in self._gaps(file, first, last):
                tail = self._waiting[-1] if self._waiting else None
                if tail is None or tail.file is not file or tail.last != begin:
                    tail = next((span for span in self._spans.get(file, ()) if span.last == begin), None)
                if tail is not None and not tail.started and tail.size < PIECE:
                    grown = min(end, tail.first + PIECE)
                    tail.last, begin = grown, grown
                for at in range(begin, end, PIECE):
                    self._waiting.append(self._new(file, at, min(end, at + PIECE)))
            self._pump()

    def read(self, file: Remote, first: int, last: int) -> np.ndarray:
        """The bytes [first, last), read-only; what was not asked for ahead is fetched now.

        Begins at an address from which every element type can be loaded that can be loaded from ``first``. Raises what
        ``file.fetch`` raises.
        """
        with self._changed:
            for begin, end in reversed(list(self._gaps(file, first, last))):
                for at in reversed(range(begin, end, PIECE)):
                    self._waiting.appendleft(self._new(file, at, min(end, at + PIECE)))
            spans = self._overlapping(file, first, last)
            self._pump()
        out: np.ndarray | None = None
        for span in spans:
            data = self._arrived(span)
            begin, end = max(first, span.first), min(last, span.last)
            part = data[begin - span.first : end - span.first]
            if (begin, end) == (first, last) and part.ctypes.data % ALIGNMENT == first % ALIGNMENT:
                out = part
            else:
                out = np.empty(last - first, np.uint8) if out is None else out
                out[begin - first : end - first] = part
            self._consume(span, end - begin)
        assert out is not None, "an empty range is never asked for"
        out.flags.writeable = False
        return out

    def forget(self, file: Remote) -> None:
        """Drop everything of a file."""
        with self._changed:
            for span in list(self._spans.get(file, ())):
                self._drop(span)
            self._pump()

    # With the lock held

    def _new(self, file: Remote, first: int, last: int) -> _Span:
        span = _Span(file, first, last)
        spans = self._spans.setdefault(file, [])
        spans.append(span)
        return span

    def _overlapping(self, file: Remote, first: int, last: int) -> list[_Span]:
        found = [span for span in self._spans.get(file, ()) if span.first < last and first < span.last]
        return sorted(found, key=lambda span: span.first)

    def _gaps(self, file: Remote, first: int, last: int) -> Iterator[tuple[int, int]]:
        """The parts of a range that no span covers, in order."""
        for span in self._overlapping(file, first, last):
            if first < span.first:
                yield first, span.first
            first = max(first, span.last)
        if first < last:
            yield first, last

    def _pump(self) -> None:
        """Start what waits, as far as connections and memory go.

        At most half of the memory is for what is on its way: requests that share a connection's rate end together, and
        while their data is read the next ones must be under way.
        """
        while self._waiting and self._active < self._connections:
            size = self._waiting[0].size
            if self._flying and self._flying + size > self.capacity // 2:
                return
            if self.held and not self._make_room(size, self._spent):
                return
            self._start(self._waiting.popleft())

    def _start(self, span: _Span) -> None:
        span.started = span.held = True
        self.held += span.size
        self._flying += span.size
        self._active += 1
        if self._active > self._threads:
            self._threads += 1
            threading.Thread(target=self._serve, name="rlmerge-link", daemon=True).start()
        self._work.put(span)

    def _drop(self, span: _Span) -> None:
        """Forget a span; a request on its way ends unheard."""
        spans = self._spans.get(span.file)
        if spans is None or span not in spans:
            return
        spans.remove(span)
        self._spent.pop(span, None)
        if not spans:
            del self._spans[span.file]
        if not span.started:
            self._waiting.remove(span)
        elif span.is_here:
            self._let_go(span)

    def _let_go(self, span: _Span) -> None:
        if span.held:
            span.held = False
            self.held -= span.size

    def _make_room(self, size: int, droppable: Iterable[_Span]) -> bool:
        """Drop spans, first things first, until ``size`` bytes fit; False if they do not."""
        for span in list(droppable) if self.held + size > self.capacity else ():
            if self.held + size <= self.capacity:
                break
            self._drop(span)
        return self.held + size <= self.capacity

    def _here(self) -> Iterator[_Span]:
        """What has come: first what was read, then what came longest ago and may never be."""
        yield from self._spent
        yield from (span for spans in self._spans.values() for span in spans if span.data is not None)

    # On any thread

    def _arrived(self, span: _Span) -> np.ndarray:
        """The data of a span, which is started now if it still waits."""
        with self._changed:
            if not span.started and span in self._waiting:
                self._waiting.remove(span)
                self._make_room(span.size, self._here())
                self._start(span)
            while not span.is_here:
                self._changed.wait()
            if span.error is not None:
                self._drop(span)
                raise span.error
            assert span.data is not None
            return span.data

    def _consume(self, span: _Span, count: int) -> None:
        with self._changed:
            span.read += count
            if span.read >= span.size and span in self._spans.get(span.file, ()):
                self._spent[span] = None
                self._make_room(0, self._spent)
                self._pump()

    def _serve(self) -> None:
        """One connection: fetches spans until the process ends."""
        while True:
            span = self._work.get()
            try:
                data, error = span.file.fetch(span.first, span.last), None
            except BaseException as raised:
                data, error = None, raised
            with self._changed:
                span.data, span.error = data, error
                self._active -= 1
                self._flying -= span.size
                if span not in self._spans.get(span.file, ()):
                    self._let_go(span)
                self._pump()
                self._changed.notify_all()
            del span, data, error


LINK = Link()
"""What all remote files of this process share."""
