"""The two digests of a shard, taken together in one pass over its bytes in file order."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import Any

import xxhash

PIECE = 2**18
"""Bytes handled at a time: small enough that the second digest and the write find them in the processor's cache."""


class ShardHash:
    """xxh3-64 of each tensor and SHA-256 of the whole file."""

    def __init__(self, header: bytes) -> None:
        self._file = hashlib.sha256(header)
        self._tensor = xxhash.xxh3_64()

    def update(self, piece: bytes | memoryview) -> None:
        """Take in the next bytes of the current tensor."""
        self._tensor.update(piece)
        self._file.update(piece)

    def finish_tensor(self) -> str:
        """Hex xxh3-64 of the current tensor; the next byte belongs to the next tensor."""
        digest = self._tensor.hexdigest()
        self._tensor.reset()
        return digest

    def sha256(self) -> str:
        """Hex SHA-256 of everything so far."""
        return self._file.hexdigest()

    def copy(self) -> ShardHash:
        """An independent hash that continues from here, at the start of a tensor."""
        other = ShardHash(b"")
        other._file = self._file.copy()
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
