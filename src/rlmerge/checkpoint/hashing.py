"""The digests of a shard, taken together in one pass over its bytes in file order.

Each tensor has an xxh3-64, which finds damage where it is; each file a BLAKE3, against which nobody can make another
file. SHA-256, which older manifests hold, costs two and a half times as much processor time and is taken on request.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import xxhash
from blake3 import blake3

PIECE = 2**18
"""Bytes handled at a time: small enough that the second digest finds them in the processor's cache."""

BLAKE3 = "blake3"
SHA256 = "sha256"


def new_digest(algorithm: str, data: bytes = b"") -> Any:
    """A running digest with ``update``, ``copy`` and ``hexdigest``, begun with ``data``; it uses one thread."""
    return blake3(data, max_threads=1) if algorithm == BLAKE3 else hashlib.new(algorithm, data)


class ShardHash:
    """xxh3-64 of each tensor, and digests of the whole file by each of ``algorithms``."""

    def __init__(self, header: bytes, algorithms: Sequence[str] = (BLAKE3,)) -> None:
        self._files = {algorithm: new_digest(algorithm, header) for algorithm in algorithms}
        self._tensor = xxhash.xxh3_64()

    def update(self, data: bytes | memoryview) -> None:
        """Take in the next bytes of the current tensor."""
        view = memoryview(data)
        for start in range(0, len(view), PIECE):
            piece = view[start : start + PIECE]
            self._tensor.update(piece)
            for digest in self._files.values():
                digest.update(piece)

    def finish_tensor(self) -> str:
        """Hex xxh3-64 of the current tensor; the next byte belongs to the next tensor."""
        digest = self._tensor.hexdigest()
        self._tensor.reset()
        return digest

    def hexdigest(self, algorithm: str = BLAKE3) -> str:
        """Hex digest of everything so far."""
        return self._files[algorithm].hexdigest()

    def copy(self) -> ShardHash:
        """An independent hash that continues from here, at the start of a tensor."""
        other = ShardHash(b"", ())
        other._files = {algorithm: digest.copy() for algorithm, digest in self._files.items()}
        return other


def read_through(fd: int, offset: int, length: int, take: Callable[[memoryview], Any]) -> bool:
    """Hand the bytes [offset, offset + length) of a file to ``take`` in pieces; False if the file ends first."""
    buffer = memoryview(bytearray(min(PIECE, length)))
    end = offset + length
    while offset < end:
        count = os.preadv(fd, [buffer[: min(PIECE, end - offset)]], offset)
        if count == 0:
            return False
        take(buffer[:count])
        offset += count
    return True


def unwatched(_: int) -> None:
    """The ``advance`` of a caller who does not follow the bytes read."""
