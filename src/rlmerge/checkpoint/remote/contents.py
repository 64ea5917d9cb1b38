"""An output directory behind an address, as ``verify`` reads it: every byte once, and nothing kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

from rlmerge.addresses import check_address
from rlmerge.checkpoint.header import MAX_HEADER, Header, read_header
from rlmerge.checkpoint.manifest import NAME, Manifest, parse_manifest
from rlmerge.checkpoint.paths import is_plain_name
from rlmerge.checkpoint.remote.file import RemoteFile
from rlmerge.checkpoint.remote.link import PIECE
from rlmerge.checkpoint.remote.mirror import store_of
from rlmerge.checkpoint.remote.store import ObjectStamp, retried
from rlmerge.errors import CheckpointError
from rlmerge.text import quoted

_AHEAD = 3
"""Pieces of a file that are on their way while one is hashed."""


class RemoteContents:
    """The files at ``address``; CheckpointError if it is none, or cannot be read."""

    def __init__(self, address: str) -> None:
        try:
            checked = check_address(address)
        except ValueError as error:
            raise CheckpointError(str(error)) from None
        self.store = store_of(checked)

    @cached_property
    def listed(self) -> dict[str, ObjectStamp]:
        """What the store lists, with the manifest, which a web server is asked for."""
        found = dict(retried(self.store.list, self.store.address))
        if NAME not in found and (stamp := self._stat(NAME)) is not None:
            found[NAME] = stamp
        return found

    @property
    def manifest(self) -> Manifest:
        stamp, where = self.listed.get(NAME), f"{self.store.address}/{NAME}"
        if stamp is None:
            hint = "Only models written by rlmerge have one; check the address."
            raise CheckpointError(f"has no {NAME}", where=self.store.address, hint=hint)
        if stamp.size > MAX_HEADER:
            raise CheckpointError(f"is {stamp.size} bytes long; at most {MAX_HEADER} are read", where=where)
        return parse_manifest(RemoteFile(Path(NAME), self.store, NAME, stamp).copy(0, stamp.size), where)

    def open(self, name: str, expected: int) -> _Streamed | None:
        if not all(is_plain_name(part) for part in name.split("/")):
            raise CheckpointError(f"{quoted(name)} is not a plain file name", where=f"{self.store.address}/{NAME}")
        stamp = self.listed.get(name) or self._stat(name)
        return None if stamp is None else _Streamed(RemoteFile(Path(name), self.store, name, stamp))

    def strangers(self, known: set[str]) -> Iterator[str]:
        for name in sorted(set(self.listed) - known):
            if not any(part.startswith(".") for part in name.split("/")):
                yield f"{name}: is not in {NAME}"

    def _stat(self, name: str) -> ObjectStamp | None:
        return retried(lambda: self.store.stat(name), f"{self.store.address}/{name}")


class _Streamed:
    """A remote file, a few pieces of it on their way at a time."""

    def __init__(self, file: RemoteFile) -> None:
        self.file = file
        self.size = file.size

    def header(self) -> Header:
        return read_header(self.file)

    def through(self, start: int, length: int, take: Callable[[memoryview], None]) -> None:
        end = start + length
        asked = start
        for first in range(start, end, PIECE):
            until = min(end, first + (1 + _AHEAD) * PIECE)
            self.file.prefetch(asked, until)
            asked = max(asked, until)
            take(self.file.read(first, min(end, first + PIECE)).data)

    def close(self) -> None:
        self.file.close()
