"""An input file: its stamp when it was first seen, ranges of it as arrays without copies, finished pages given back."""

from __future__ import annotations

import errno
import mmap
import os
import stat
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rlmerge.checkpoint import syscalls
from rlmerge.checkpoint.paths import unreadable
from rlmerge.errors import CheckpointError, RunError

if TYPE_CHECKING:
    from rlmerge.checkpoint.remote.store import ObjectStamp

MAX_OPEN = 128
"""Files kept open; each holds a descriptor, two if it is mapped, and 1024 is a common limit for a process."""

_PIECE = 2**18
"""Bytes read at a time by ``feed``."""

_REMEMBERED = 16
"""Digests kept of a file: models that are compared with each other differ in their first tensors."""

_WOULD_FAULT = (errno.EFAULT, errno.EIO)
_can_populate = sys.platform == "linux"
_can_advise = hasattr(os, "posix_fadvise")


class Stamp(NamedTuple):
    """What changes when a file does: device, inode, size in bytes, and times of content and inode in nanoseconds."""

    device: int
    inode: int
    size: int
    mtime: int
    ctime: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """The stamp of a ``stat`` result."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class OpenFile:
    """An open file, closed when nobody uses it any more, and its mapping once somebody has asked for that."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.data: np.ndarray | None = None
        self.address = 0

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        # Of a file that was only read nothing is lost; and modules may be gone when the process ends.
        with suppress(OSError):
            close(self.fd)

    def map(self) -> np.ndarray:
        """The whole file, read-only."""
        if self.data is None:
            mapped = mmap.mmap(self.fd, 0, access=mmap.ACCESS_READ)
            if hasattr(mmap, "MADV_SEQUENTIAL"):
                mapped.madvise(mmap.MADV_SEQUENTIAL)
            data = np.frombuffer(mapped, np.uint8)
            self.address = data.ctypes.data
            self.data = data
        return self.data

    def advise(self, first: int, last: int, advice: int) -> int:
        """Advise on mapped bytes, rounded outwards to pages; 0 or the errno."""
        begin = first - first % mmap.PAGESIZE
        return syscalls.madvise(self.address + begin, last - begin, advice)


_open: OrderedDict[InputFile, OpenFile] = OrderedDict()
_lock = threading.Lock()


class InputFile:
    """One regular file that is read during a run, by many threads.

    Its ``stamp`` is taken when the object is made: every later use compares with it, so that bytes of two editions are
    never mixed. A range goes through three steps: ``prefetch`` what will be needed, ``read`` it, ``release`` it. Only
    ``read`` is required; the others keep the disk busy ahead of the work and the resident set small behind it.

    CheckpointError when made of something that is no readable regular file.
    """

    stamp: Stamp | ObjectStamp

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[Hashable, bytes] = {}
        try:
            # Opening a FIFO or a device can block or have effects, so its kind is looked at first.
            status = path.stat()
        except OSError as error:
            raise unreadable(path, error) from error
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError("is not a regular file", where=str(path), hint="Name a model directory.")
        self.stamp = Stamp.of(status)

    def __str__(self) -> str:
        return str(self.path)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.stamp.size

    @property
    def is_remote(self) -> bool:
        """Whether reading takes memory and a network."""
        return False

    def read(self, first: int, last: int, what: str = "") -> np.ndarray:
        """The bytes [first, last) as a read-only uint8 view of the mapped file, valid as long as it is referenced.

        ``what`` lies there, to name in a message.
        CheckpointError if the file is gone or the disk fails, RunError if it has changed.
        """
        global _can_populate
        if first == last:
            return np.empty(0, np.uint8)
        handle, data = self._mapped()
        if _can_populate:
            # Faulting the range in here turns a truncated file or a failing disk, otherwise a fatal SIGBUS in the
            # middle of a kernel, into an error code; it is also cheaper than one page fault after the other.
            code = handle.advise(first, last, syscalls.MADV_POPULATE_READ)
            if code in _WOULD_FAULT:
                raise self._unreadable(what)
            _can_populate = code == 0
        return data[first:last]

    def copy(self, first: int, last: int) -> bytes:
        """The bytes [first, last), read without mapping the file; errors as for ``read``."""
        return next(self.copies([(first, last)]))

    def copies(self, ranges: Iterable[tuple[int, int]]) -> Iterator[bytes]:
        """The same of several ranges, in their order."""
        try:
            with self.path.open("rb", buffering=0) as handle:
                self._compare(os.fstat(handle.fileno()))
                for first, last in ranges:
                    yield self._copy(handle.fileno(), first, last)
        except OSError as error:
            raise unreadable(self.path, error) from error

    def feed(self, ranges: Iterable[tuple[int, int]], take: Callable[[bytes | memoryview], object]) -> None:
        """Hand the bytes of several ranges to ``take``, in pieces that are void after the call; errors as for ``read``.

        One buffer serves all of them, which stays in the processor's cache.
        """
        try:
            # Without file objects, which cost more than the few pages that most tensors are asked for.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                self._compare(os.fstat(descriptor))
                self._feed(descriptor, ranges, take)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise unreadable(self.path, error) from error

    def _feed(
        self, descriptor: int, ranges: Iterable[tuple[int, int]], take: Callable[[bytes | memoryview], object]
    ) -> None:
        buffer = memoryview(bytearray())
        for first, last in ranges:
            if len(buffer) < min(_PIECE, last - first):
                buffer = memoryview(bytearray(min(_PIECE, last - first)))
            while first < last:
                count = os.preadv(descriptor, [buffer[: last - first]], first)
                if not count:
                    raise self._changed()
                take(buffer[:count])
                first += count

    def _copy(self, descriptor: int, first: int, last: int) -> bytes:
        parts: list[bytes] = []
        while first < last:
            part = os.pread(descriptor, last - first, first)
            if not part:
                raise self._changed()
            parts.append(part)
            first += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def remembered(self, key: Hashable, find: Callable[[], bytes]) -> bytes:
        """What ``find`` gives, which depends on the file's bytes and ``key`` alone; the first few are kept."""
        found = self._known.get(key)
        if found is None:
            found = find()
            if len(self._known) < _REMEMBERED:
                self._known[key] = found
        return found

    def prefetch(self, first: int, last: int) -> None:
        """Have the kernel start to read a range that will be needed; returns without waiting for it."""
        if first < last and _can_advise:
            handle = self.opened()
            if not _is_cached(handle.fd, last - 1):
                os.posix_fadvise(handle.fd, first, last - first, os.POSIX_FADV_WILLNEED)

    def is_cached(self, offset: int) -> bool:
        """Whether a byte can be had at once, from which its neighbours are thought to be in the page cache too."""
        return _is_cached(self.opened().fd, offset)

    def release(self, first: int, last: int) -> None:
        """Give the pages of a finished range back: they leave this process but stay in the file cache."""
        with _lock:
            handle = _open.get(self)
        if handle is not None and handle.address and first < last:
            # Rounded outwards, too: a neighbour still in use just faults its page in again.
            handle.advise(first, last, syscalls.MADV_DONTNEED)

    def close(self) -> None:
        """Let go of the file; it is closed when the last array over it is gone."""
        with _lock:
            _open.pop(self, None)

    def check(self) -> None:
        """RunError if the file is no longer the one that was opened."""
        try:
            found = Stamp.of(self.path.stat())
        except OSError as error:
            raise RunError(f"is no longer there ({error.strerror})", where=str(self), hint=AGAIN) from error
        if found != self.stamp:
            raise self._changed()

    def _compare(self, status: os.stat_result) -> None:
        if Stamp.of(status) != self.stamp:
            raise self._changed()

    def _changed(self) -> RunError:
        return RunError("has changed since it was opened", where=str(self), hint=AGAIN)

    def _unreadable(self, what: str) -> CheckpointError:
        """What to raise when bytes that were there cannot be read; RunError if the file has changed."""
        self.check()
        hint = "It changed or its disk failed while it was read; check the file, then run again."
        where = f"{self}: {what}" if what else str(self)
        return CheckpointError("the bytes can no longer be read", where=where, hint=hint)

    def opened(self) -> OpenFile:
        """The file, open as long as this object is kept; CheckpointError if it is gone, RunError if it has changed."""
        with _lock:
            return self._open_file()

    def _mapped(self) -> tuple[OpenFile, np.ndarray]:
        with _lock:
            handle = self._open_file()
            try:
                return handle, handle.map()
            except (OSError, ValueError) as error:
                cause = error if isinstance(error, OSError) else OSError(errno.ENODATA, "the file is empty")
                raise unreadable(self.path, cause) from error

    def _open_file(self) -> OpenFile:
        handle = _open.get(self)
        if handle is None:
            try:
                handle = OpenFile(os.open(self.path, os.O_RDONLY | os.O_CLOEXEC))
                self._compare(os.fstat(handle.fd))
            except OSError as error:
                raise unreadable(self.path, error) from error
            _open[self] = handle
            if len(_open) > MAX_OPEN:
                _open.popitem(last=False)
        else:
            _open.move_to_end(self)
        return handle


def _is_cached(fd: int, offset: int) -> bool:
    if not hasattr(os, "RWF_NOWAIT"):
        return False
    try:
        return os.preadv(fd, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except OSError:
        return False


def forget() -> None:
    """Close every file of which no array is in use."""
    with _lock:
        _open.clear()


AGAIN = "Let the writer finish, or restore the file; then run again (a merge goes on with --resume)."
