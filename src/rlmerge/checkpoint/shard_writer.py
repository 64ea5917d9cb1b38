"""Writes one safetensors file from front to back, hashing the bytes as they pass."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlmerge.checkpoint.failures import writing
from rlmerge.checkpoint.hashing import PIECE, ShardHash
from rlmerge.checkpoint.journal import Journal, JournalEntry
from rlmerge.checkpoint.layout import OutputTensor, ShardPlan
from rlmerge.checkpoint.output_file import IN_FLIGHT, DirectFile, OutputFile, takes_direct, write_all
from rlmerge.checkpoint.recheck import KeptShard
from rlmerge.errors import RequestError, RunError


class Pools(NamedTuple):
    """Threads that writers share: one thread takes the digests, in order; several write past the page cache."""

    hashing: Executor
    writing: Executor

    def shutdown(self) -> None:
        """Wait for what was submitted."""
        self.hashing.shutdown()
        self.writing.shutdown()


def new_pools() -> Pools:
    """Threads of their own, which start when they are needed."""
    return Pools(ThreadPoolExecutor(1, "rlmerge-hash"), ThreadPoolExecutor(IN_FLIGHT, "rlmerge-write"))


class ShardWriter:
    """Takes the tensors of one shard in their order, each in consecutive pieces, from one thread.

    The file has its final size and its header from the start. Threads of ``pools`` take the digests and write large
    files past the page cache; without them, the caller's thread does all. A finished tensor is in the journal once its
    bytes are in the file, every one when the last is finished.
    """

    def __init__(
        self,
        path: Path,
        shard: ShardPlan,
        journal: Journal,
        kept: KeptShard | None = None,
        when_complete: Callable[[ShardWriter], None] = lambda writer: None,
        pools: Pools | None = None,
        direct: bool = True,
    ) -> None:
        """Begin ``shard`` at ``path``, or continue what was ``kept``; ``when_complete`` follows its last tensor.

        What is not ``direct`` is left in the page cache, for somebody who reads it at once.
        """
        if kept is not None and kept.header != shard.header:
            hint = "Discard the interrupted run with --force and without --resume."
            raise RequestError("was begun with another layout", where=str(path), hint=hint)
        done = len(kept.names) if kept else 0
        self.shard = shard
        self.digest = kept.digest if kept else ShardHash(shard.header)
        self._path = path
        self._journal = journal
        self._when_complete = when_complete
        self._pools = pools
        self._hashed: Future[None] | None = None
        """The last piece on its way into the digests, which take them in order."""
        self._claims: deque[tuple[int, JournalEntry]] = deque()
        """Entries of finished tensors, with where they end, that wait for their bytes to land."""
        self._done = done
        self._offset = len(shard.header) + sum(tensor.nbytes for tensor in shard.tensors[:done])
        self._stop = self._offset + (shard.tensors[done].nbytes if done < len(shard.tensors) else 0)
        with writing(path):
            fd = _continue(path) if kept else _begin(path, shard)
            if direct and pools is not None and takes_direct(path, shard.size):
                self._file: OutputFile = DirectFile(fd, self._offset, path, pools.writing)
            else:
                self._file = OutputFile(fd, self._offset)
        if not self.pending:
            when_complete(self)

    @property
    def pending(self) -> tuple[OutputTensor, ...]:
        """The tensors still to be written, in order."""
        return self.shard.tensors[self._done :]

    @property
    def _next(self) -> OutputTensor | None:
        """The first of ``pending``."""
        return self.shard.tensors[self._done] if self._done < len(self.shard.tensors) else None

    def write(self, name: str, data: np.ndarray | memoryview) -> None:
        """Append ``data``, C-contiguous in the tensor's storage type, to tensor ``name``, the first of ``pending``."""
        wait(self.submit(name, data))

    def submit(self, name: str, data: np.ndarray | memoryview) -> list[Future[None]]:
        """The same, but ``data`` may only change when the futures are done, which tell nothing of failures."""
        self._expect(name)
        octets = _octets(data)
        if self._offset + len(octets) > self._stop:
            raise ValueError(f"{self._offset + len(octets) - self._stop} bytes too many for tensor {name!r}")
        busy: list[Future[None]] = []
        if self._pools is None or len(octets) <= PIECE:
            self._wait_for_digest()
            self.digest.update(octets)
        else:
            self._hashed = self._pools.hashing.submit(self.digest.update, octets)
            busy.append(self._hashed)
        try:
            with writing(self._path):
                sent = self._file.append(octets)
        except BaseException:
            wait(busy)
            raise
        self._offset += len(octets)
        return busy if sent is None else [*busy, sent]

    def _wait_for_digest(self) -> None:
        """Wait until everything is in the digests."""
        if self._hashed is not None:
            self._hashed.result()
            self._hashed = None

    def finish_tensor(self, name: str, stats: Mapping[str, Any]) -> JournalEntry:
        """End tensor ``name``, all of whose bytes were written; its journal entry with its JSON-able ``stats``."""
        self._expect(name)
        if self._offset != self._stop:
            raise ValueError(f"{self._stop - self._offset} bytes of tensor {name!r} are missing")
        self._wait_for_digest()
        entry = JournalEntry(name, self.shard.name, self.digest.finish_tensor(), stats)
        self._claims.append((self._offset, entry))
        self._done += 1
        if (following := self._next) is not None:
            self._stop += following.nbytes
            self._claim()
        else:
            self._flush()
            self._when_complete(self)
        return entry

    def _flush(self) -> None:
        """Wait until everything is in the file, and what is finished in the journal."""
        with writing(self._path):
            self._file.flush()
        self._claim()

    def _claim(self) -> None:
        """Enter the tensors into the journal whose bytes are in the file."""
        with writing(self._path):
            landed = self._file.landed
        while self._claims and self._claims[0][0] <= landed:
            self._journal.append(self._claims.popleft()[1])

    def sync(self) -> None:
        """Wait until the file's bytes are on disk; RunError if they do not get there, and then the file is gone.

        After a failed fsync the kernel may take pages for clean that never reached the disk, so that reading the file,
        and even another fsync, would show nothing wrong. A resumed run must therefore find nothing to keep.
        """
        with writing(self._path):
            try:
                self._file.sync()
            except OSError:
                with suppress(OSError):
                    self._path.unlink()
                raise

    def close(self) -> None:
        """Let go of the file. Tensors that are finished, but not all of them, are kept for a run that goes on."""
        with suppress(RunError):
            if self._claims:
                self._flush()
        self._file.close()

    def _expect(self, name: str) -> None:
        following = self._next
        if following is None or following.name != name:
            expected = "nothing" if following is None else repr(following.name)
            raise ValueError(f"tensor {name!r} is out of order: {self.shard.name} expects {expected}")


def _octets(data: np.ndarray | memoryview) -> memoryview:
    """The bytes of ``data`` in place."""
    if isinstance(data, np.ndarray):
        if not data.flags.c_contiguous:
            raise ValueError("only C-contiguous arrays are written, so that nothing is copied")
        data = data.reshape(-1).view(np.uint8).data
    return data if data.format == "B" and data.ndim == 1 else data.cast("B")


def _continue(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _begin(path: Path, shard: ShardPlan) -> int:
    """Create the file in its final size, with its header."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        _allocate(fd, shard.size)
        write_all(fd, memoryview(shard.header), 0)
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
