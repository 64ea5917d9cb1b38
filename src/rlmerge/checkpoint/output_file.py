"""A file written from front to back, through the page cache or past it.

What is written past the cache takes a tenth of the processor time, and leaves the models that a next merge will read
in the cache rather than its result.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections import deque
from concurrent.futures import Executor, Future
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np

from rlmerge.checkpoint import syscalls
from rlmerge.kernels.calls import address

DIRECT_FROM = 64 * 2**20
"""Bytes of a file from which on it is written past the cache: smaller ones are likely to be read at once."""

STAGING = 2**20
"""Bytes that are collected for a request, where they do not come in large pieces."""

IN_FLIGHT = 4
"""Requests at a time: while the disk is being read, each waits its turn among what the kernel reads ahead."""

DIRECT_MEMORY = (IN_FLIGHT + 1) * STAGING
"""Bytes of memory that a file takes that is written past the cache."""

_WRITEBACK = 32 * 2**20
"""Bytes after which the kernel is told to begin writing to disk."""

PAGE = 4096
"""What offsets, lengths and addresses of direct writes are multiples of: enough for any disk."""

_IN_PLACE = 2**18
"""Bytes from which on they are written from where they are: a request of its own takes longer than to copy fewer."""

_DIRECT_FILE_SYSTEMS = frozenset({0xEF53, 0x58465342})
"""ext2 to ext4 and XFS, by their magic numbers: file systems of one machine, on disks, where this is measured."""


class OutputFile:
    """Appends to the file of a descriptor that it takes over, from ``offset`` on; OSError where that fails.

    Bytes before ``landed`` are in the file, whatever becomes of this process.
    """

    def __init__(self, fd: int, offset: int) -> None:
        self._fd = fd
        self._offset = self._started = offset

    @property
    def landed(self) -> int:
        """Where the bytes end that are in the file."""
        return self._offset

    def append(self, data: memoryview) -> Future[None] | None:
        """Write ``data``, one-dimensional bytes that may change once the future is done, or after the call without one.

        The future says nothing of failures, which the next call raises.
        """
        self._offset = write_all(self._fd, data, self._offset)
        if self._offset - self._started >= _WRITEBACK:
            syscalls.start_writeback(self._fd, self._started, self._offset - self._started)
            self._started = self._offset
        return None

    def flush(self) -> None:
        """Wait until all bytes have landed."""

    def sync(self) -> None:
        """Wait until everything that has landed is on disk."""
        os.fsync(self._fd)

    def close(self) -> None:
        """Let go of the file; what has not landed is given up."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class DirectFile(OutputFile):
    """An ``OutputFile`` whose bytes go past the page cache, in large requests that begin and end at pages.

    Threads of ``pool`` write, a few requests at a time. Bytes are collected in memory of its own; where many come at
    once, and an address is as far from a page as its place in the file, they are written from where they are. A file
    system that does not take such requests gets them, and all that follow, through the cache, and so does whatever
    comes after ``flush``, which gives the memory back.
    """

    def __init__(self, fd: int, offset: int, path: Path, pool: Executor) -> None:
        super().__init__(fd, offset)
        self._path = path
        self._pool = pool
        self._flying: deque[tuple[Future[None], np.ndarray | None, int]] = deque()
        """Requests in the order of the file, with the memory that they are from and where they end."""
        self._free: list[np.ndarray] = []
        self._filling = np.empty(0, np.uint8)
        self._begin = offset - offset % PAGE
        """Where in the file the memory begins that is being filled."""
        self._filled = offset - self._begin
        self._failure: OSError | None = None
        self._state: Literal["new", "direct", "ended"] = "new"

    @property
    def landed(self) -> int:
        while self._failure is None and self._flying and self._flying[0][0].done():
            with suppress(OSError):  # which the next call raises
                self._reap()
        return self._offset

    def append(self, data: memoryview) -> Future[None] | None:
        self._check()
        if self._state == "ended":
            return super().append(data)
        if self._state == "new":
            self._start()
        octets = np.frombuffer(data, np.uint8)
        position = self._begin + self._filled
        sent = None
        if len(octets) >= _IN_PLACE and address(octets) % PAGE == position % PAGE:
            head = -position % PAGE
            whole = len(octets) - (len(octets) - head) % PAGE
            if self._filled:
                self._collect(octets[:head])
                self._send_collected()
            sent = self._send(octets[head:whole], None)
            octets = octets[whole:]
        self._collect(octets)
        return sent

    def flush(self) -> None:
        if self._state != "direct":
            return
        self._send_collected()
        while self._flying:
            self._reap()
        self._check()
        _set_direct(self._fd, False)
        self._offset = self._started = write_all(self._fd, self._filling[: self._filled].data, self._begin)
        self._state = "ended"
        self._free, self._filling = [], np.empty(0, np.uint8)

    def close(self) -> None:
        while self._flying:
            with suppress(OSError):
                self._reap()
        super().close()

    def _start(self) -> None:
        """Take memory, with the beginning of the page that is in the file already."""
        memory = page_aligned(DIRECT_MEMORY)
        self._free = [memory[i : i + STAGING] for i in range(0, DIRECT_MEMORY, STAGING)]
        self._filling = self._free.pop()
        self._filling[: self._filled] = np.frombuffer(_read(self._path, self._begin, self._offset), np.uint8)
        _set_direct(self._fd, True)
        self._state = "direct"

    def _collect(self, octets: np.ndarray) -> None:
        """Take bytes into memory, and have it written whenever it is full."""
        while len(octets):
            count = min(len(octets), STAGING - self._filled)
            self._filling[self._filled : self._filled + count] = octets[:count]
            self._filled += count
            octets = octets[count:]
            if self._filled == STAGING:
                self._send_collected()

    def _send_collected(self) -> None:
        """Have all whole pages of the memory written, and go on in another with the rest."""
        whole = self._filled - self._filled % PAGE
        if not whole:
            return
        while not self._free:
            self._reap()
        memory, following = self._filling, self._free.pop()
        following[: self._filled - whole] = memory[whole : self._filled]
        self._filling, self._filled = following, self._filled - whole
        self._send(memory[:whole], memory)

    def _send(self, octets: np.ndarray, memory: np.ndarray | None) -> Future[None]:
        """Have whole pages written where the last ones end; ``memory`` is free again afterwards."""
        while len(self._flying) >= IN_FLIGHT:
            self._reap()
        future = self._pool.submit(self._write, octets, self._begin)
        self._begin += len(octets)
        self._flying.append((future, memory, self._begin))
        return future

    def _reap(self) -> None:
        """Wait for the oldest request."""
        future, memory, end = self._flying.popleft()
        if memory is not None:
            self._free.append(memory)
        try:
            future.result()
        except OSError as error:
            self._failure = self._failure or error
        self._check()
        self._offset = end

    def _check(self) -> None:
        """Raise what an earlier request failed with: nothing lands behind a gap."""
        if self._failure is not None:
            raise self._failure

    def _write(self, memory: np.ndarray, offset: int) -> None:
        """Write whole pages of memory, which begins at one, to an offset that is one."""
        data, count = memory.data, PAGE
        while data and count and count % PAGE == 0:
            try:
                count = os.pwrite(self._fd, data, offset)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                count = 0
            data, offset = data[count:], offset + count
        if data:
            # Not taken at all, or cut short where no direct request may begin.
            _set_direct(self._fd, False)
            write_all(self._fd, data, offset)


def page_aligned(nbytes: int) -> np.ndarray:
    """Memory, uint8, that begins at a page; where the system has large pages, in those."""
    memory = np.empty(nbytes + PAGE, np.uint8)
    first = -address(memory) % PAGE
    return memory[first : first + nbytes]


def takes_direct(path: Path, size: int) -> bool:
    """Whether a file of ``size`` bytes that is at ``path`` is better written past the page cache."""
    return hasattr(os, "O_DIRECT") and size >= DIRECT_FROM and syscalls.file_system(path) in _DIRECT_FILE_SYSTEMS


def write_all(fd: int, data: memoryview, offset: int) -> int:
    """Write all of ``data`` from ``offset`` on; where it ends."""
    while data:
        count = os.pwrite(fd, data, offset)
        data, offset = data[count:], offset + count
    return offset


def _read(path: Path, first: int, last: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        return os.pread(file.fileno(), last - first, first)


def _set_direct(fd: int, wanted: bool) -> None:
    """Have writes go past the cache or through it, as far as the file system can."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    with suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_DIRECT if wanted else flags & ~os.O_DIRECT)
