"""Compressed bytes read from front to back in bounded memory, and scratch files for what can only be read that way."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import tempfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import xxhash

from rlmerge.checkpoint.source import Source
from rlmerge.errors import CheckpointError, RunError
from rlmerge.extras import require
from rlmerge.frozen import frozen

MAX_WINDOW = 1 << 27
"""Bytes of the largest window that is decompressed: what the zstd command accepts without being asked."""

_INPUT = 1 << 17
_AGAIN = "Download or copy it again."


class _Input:
    """A source of bytes as a file to read in sequence."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._position = 0

    def read(self, size: int = -1) -> bytes:
        stop = min(self._source.numel, self._position + (_INPUT if size < 0 else size))
        octets = self._source.read(self._position, stop).tobytes()
        self._position = stop
        return octets


class Stream:
    """The content of zstd frames that are the bytes of ``source``, in sequence.

    CheckpointError, here and from every method, if they are not zstd, truncated or damaged.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.window = frame_window(source)
        self._zstd = require("zstandard")
        decompressor = self._zstd.ZstdDecompressor(max_window_size=MAX_WINDOW)
        self._reader = decompressor.stream_reader(_Input(source), read_across_frames=True, read_size=_INPUT)

    def read(self, size: int) -> np.ndarray:
        """The next ``size`` bytes, uint8, writable."""
        out = np.empty(size, np.uint8)
        filled = 0
        while filled < size:
            count = self._into(out.data[filled:])
            if not count:
                what = f"is truncated: {size - filled} bytes more were due"
                raise CheckpointError(what, where=self.source.where, hint=_AGAIN)
            filled += count
        return out

    def skip(self, size: int) -> None:
        """Pass over the next ``size`` bytes."""
        while size:
            size -= len(self.read(min(size, 1 << 20)))

    def finish(self) -> None:
        """CheckpointError if anything is left."""
        if self._into(memoryview(bytearray(1))):
            what = "holds more bytes than the tensor has"
            raise CheckpointError(what, where=self.source.where, hint="It belongs to another base, or is damaged.")

    def _into(self, buffer: memoryview) -> int:
        try:
            return int(self._reader.readinto(buffer))
        except self._zstd.ZstdError as error:
            raise CheckpointError(f"is no sound zstd data ({error})", where=self.source.where, hint=_AGAIN) from None


def frame_window(source: Source) -> int:
    """Bytes of memory that decompressing the first frame needs; CheckpointError if it is none or asks for too much."""
    zstd = require("zstandard")
    try:
        window = int(zstd.get_frame_parameters(source.read(0, min(18, source.numel)).tobytes()).window_size)
    except zstd.ZstdError as error:
        raise CheckpointError(f"is no sound zstd data ({error})", where=source.where, hint=_AGAIN) from None
    if window > MAX_WINDOW:
        what = f"needs {window:,} bytes of memory to decompress; at most {MAX_WINDOW:,} are given"
        raise CheckpointError(what, where=source.where, hint="Compress it with a window of 128 MiB or less.")
    return window


class Spool:
    """A scratch file without a name that takes ``size`` bytes in sequence, and then gives them as an array."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._folder = _folder()
        try:
            self._file: BinaryIO = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - it outlives this call
        except OSError as error:
            raise self._failed(error) from error

    def write(self, octets: np.ndarray) -> None:
        """Append bytes; RunError if the disk is full."""
        try:
            self._file.write(octets.data)
        except OSError as error:
            raise self._failed(error) from error

    def array(self) -> np.ndarray:
        """All bytes, uint8, read-only; the file goes when nothing refers to it any more. RunError as for ``write``."""
        if not self._size:
            return np.empty(0, np.uint8)
        try:
            self._file.flush()
            return np.frombuffer(mmap.mmap(self._file.fileno(), self._size, access=mmap.ACCESS_READ), np.uint8)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> RunError:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = f"the disk is full; {self._size:,} bytes of scratch space are needed" if full else str(error)
        hint = "Set TMPDIR to a directory on a disk with more space, then run again."
        return RunError(what, where=self._folder, hint=hint)


def _folder() -> str:
    """Where scratch files go: TMPDIR, or a directory that is on disk where /tmp may be in memory."""
    large = Path("/var/tmp")
    if not os.environ.get("TMPDIR") and large.is_dir() and os.access(large, os.W_OK | os.X_OK):
        return str(large)
    return tempfile.gettempdir()


class Hasher(Protocol):
    """An incremental digest."""

    def update(self, data: Any, /) -> Any: ...

    def hexdigest(self) -> str: ...


class _Adler32:
    def __init__(self) -> None:
        self._value = 1

    def update(self, data: Any, /) -> None:
        self._value = zlib.adler32(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


ALGORITHMS = ("xxh3-128", "sha256", "adler32", "blake3")


@frozen
class Check:
    """The hex digest that some bytes must have."""

    algorithm: str
    digest: str

    def begin(self) -> Hasher:
        """A fresh hasher; RequestError if the package for it is missing."""
        if self.algorithm == "sha256":
            return hashlib.sha256()
        if self.algorithm == "adler32":
            return _Adler32()
        return require("blake3").blake3() if self.algorithm == "blake3" else xxhash.xxh3_128()


def check_of(algorithm: object, digest: object, where: str) -> Check:
    """The check that a file states; CheckpointError if it cannot be made."""
    if algorithm not in ALGORITHMS:
        hint = f"Known: {', '.join(ALGORITHMS)}."
        raise CheckpointError(f"unknown checksum {algorithm!r}", where=where, hint=hint)
    if not isinstance(digest, str) or not digest:
        raise CheckpointError("states no checksum", where=where, hint="It is damaged; publish or download it again.")
    return Check(algorithm, digest.lower())
