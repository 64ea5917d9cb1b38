"""The record of finished tensors that lets a killed run continue.

One line per tensor: an xxh3-64 of the rest of the line, then JSON. The first line holds the digest of the plan. A line
is written after its tensor's bytes, but nothing is fsynced then: the journal is a claim, and a resumed run believes it
where the bytes on disk match the digest in it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xxhash

from rlmerge.checkpoint.failures import writing

NAME = "journal.jsonl"


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """A finished tensor: the shard it is in, the hex xxh3-64 of its bytes, and whatever the merge reported about it."""

    tensor: str
    shard: str
    xxh3: str
    stats: Mapping[str, Any]


def _line(content: Mapping[str, Any]) -> bytes:
    text = json.dumps(content).encode()
    return f"{xxhash.xxh3_64_hexdigest(text)} ".encode() + text + b"\n"


class Journal:
    """An append-only journal in ``directory``, begun afresh with the plan's digest and the entries that were kept.

    ``entries`` holds what it records, by tensor.
    """

    def __init__(self, directory: Path, plan_digest: str, kept: Iterable[JournalEntry] = ()) -> None:
        self.entries = {entry.tensor: entry for entry in kept}
        self._path = directory / NAME
        lines = [_line({"plan": plan_digest}), *(_line(asdict(entry)) for entry in self.entries.values())]
        with writing(self._path):
            # The old journal stays in place until the new one is whole.
            fresh = self._path.with_suffix(".new")
            fresh.write_bytes(b"".join(lines))
            fresh.replace(self._path)
            self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def append(self, entry: JournalEntry) -> None:
        line = _line(asdict(entry))
        with writing(self._path):
            while line:
                line = line[os.write(self._fd, line) :]
        self.entries[entry.tensor] = entry

    def remove(self) -> None:
        """Delete the file; ``entries`` stay."""
        self.close()
        with writing(self._path):
            self._path.unlink()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read_journal(directory: Path) -> tuple[str, list[JournalEntry]] | None:
    """The plan's digest and the entries up to the first torn or altered line; None without a journal or first line."""
    try:
        lines = (directory / NAME).read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return None
    contents: list[dict[str, Any]] = []
    for line in lines:
        digest, _, text = line.partition(b" ")
        if not text.endswith(b"\n") or xxhash.xxh3_64_hexdigest(text[:-1]).encode() != digest:
            break
        contents.append(json.loads(text))
    if not contents or "plan" not in contents[0]:
        return None
    return contents[0]["plan"], [JournalEntry(**content) for content in contents[1:]]
