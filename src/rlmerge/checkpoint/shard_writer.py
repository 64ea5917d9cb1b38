"""Writes one safetensors file from front to back, hashing the bytes as they pass."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from rlmerge.checkpoint import syscalls
from rlmerge.checkpoint.failures import writing
from rlmerge.checkpoint.hashing import PIECE, ShardHash
from rlmerge.checkpoint.journal import Journal, JournalEntry
from rlmerge.checkpoint.layout import OutputTensor, ShardPlan
from rlmerge.checkpoint.recheck import KeptShard
from rlmerge.errors import RequestError

_WRITEBACK = 32 * 2**20
"""Bytes after which the kernel is told to begin writing to disk."""


class ShardWriter:
    """Takes the tensors of one shard in their order, each in consecutive pieces, from one thread.

    The file has its final size and its header from the start. Nothing is buffered: bytes go from the caller's array to
    the file, while the thread of ``hasher`` takes the digests; without one, the caller's thread does.
    """

    def __init__(
        self,
        path: Path,
        shard: ShardPlan,
        journal: Journal,
        kept: KeptShard | None = None,
        when_complete: Callable[[ShardWriter], None] = lambda writer: None,
        hasher: Executor | None = None,
    ) -> None:
        """Begin ``shard`` at ``path``, or continue what was ``kept``; ``when_complete`` follows its last tensor."""
        if kept is not None and kept.header != shard.header:
            hint = "Discard the interrupted run with --force and without --resume."
            raise RequestError("was begun with another layout", where=str(path), hint=hint)
        done = len(kept.names) if kept else 0
        self.shard = shard
        self.digest = kept.digest if kept else ShardHash(shard.header)
        self._path = path
        self._journal = journal
        self._when_complete = when_complete
        self._hasher = hasher
        self._done = done
        self._offset = len(shard.header) + sum(tensor.nbytes for tensor in shard.tensors[:done])
        self._stop = self._offset + (shard.tensors[done].nbytes if done < len(shard.tensors) else 0)
        self._started = self._offset
        with writing(path):
            self._fd = _continue(path) if kept else _begin(path, shard)
        if not self.pending:
            when_complete(self)

    @property
    def pending(self) -> tuple[OutputTensor, ...]:
        """The tensors still to be written, in order."""
        return self.shard.tensors[self._done :]

    def write(self, name: str, data: np.ndarray | memoryview) -> None:
        """Append ``data``, C-contiguous in the tensor's storage type, to tensor ``name``, the first of ``pending``."""
        self._expect(name)
        octets = _octets(data)
        if self._offset + len(octets) > self._stop:
            raise ValueError(f"{self._offset + len(octets) - self._stop} bytes too many for tensor {name!r}")
        with writing(self._path):
            if self._hasher is None or len(octets) <= PIECE:
                self.digest.update(octets)
                _write_all(self._fd, octets, self._offset)
            else:
                hashed = self._hasher.submit(self.digest.update, octets)
                try:
                    _write_all(self._fd, octets, self._offset)
                finally:
                    # The caller may change the array as soon as we return.
                    hashed.result()
            self._offset += len(octets)
            if self._offset - self._started >= _WRITEBACK:
                syscalls.start_writeback(self._fd, self._started, self._offset - self._started)
                self._started = self._offset

    def finish_tensor(self, name: str, stats: Mapping[str, Any]) -> JournalEntry:
        """Enter tensor ``name``, all of whose bytes were written, into the journal with its JSON-able ``stats``."""
        self._expect(name)
        if self._offset != self._stop:
            raise ValueError(f"{self._stop - self._offset} bytes of tensor {name!r} are missing")
        entry = JournalEntry(name, self.shard.name, self.digest.finish_tensor(), stats)
        self._journal.append(entry)
        self._done += 1
        if self.pending:
            self._stop += self.pending[0].nbytes
        else:
            self._when_complete(self)
        return entry

    def sync(self) -> None:
        """Wait until the file's bytes are on disk; RunError if they do not get there, and then the file is gone.

        After a failed fsync the kernel may take pages for clean that never reached the disk, so that reading the file,
        and even another fsync, would show nothing wrong. A resumed run must therefore find nothing to keep.
        """
        with writing(self._path):
            try:
                os.fsync(self._fd)
            except OSError:
                with suppress(OSError):
                    self._path.unlink()
                raise

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _expect(self, name: str) -> None:
        if not self.pending or self.pending[0].name != name:
            expected = repr(self.pending[0].name) if self.pending else "nothing"
            raise ValueError(f"tensor {name!r} is out of order: {self.shard.name} expects {expected}")


def _octets(data: np.ndarray | memoryview) -> memoryview:
    """The bytes of ``data`` in place."""
    if isinstance(data, np.ndarray):
        if not data.flags.c_contiguous:
            raise ValueError("only C-contiguous arrays are written, so that nothing is copied")
        data = data.reshape(-1).view(np.uint8).data
    return data if data.format == "B" and data.ndim == 1 else data.cast("B")


def _write_all(fd: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(fd, data, offset)
        data, offset = data[count:], offset + count


def _continue(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _begin(path: Path, shard: ShardPlan) -> int:
    """Create the file in its final size, with its header."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        _allocate(fd, shard.size)
        _write_all(fd, memoryview(shard.header), 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _allocate(fd: int, size: int) -> None:
    """Reserve the file's blocks, so that a full disk shows at its start; only set its size where that is impossible."""
    if hasattr(os, "posix_fallocate"):
        try:
            return os.posix_fallocate(fd, 0, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENODEV):
                raise
    return os.ftruncate(fd, size)
