"""The record of finished tensors that lets a killed run continue.

One line per tensor: an xxh3-64 of the rest of the line, then JSON. The first line holds the digest of the plan and is
on disk before anything else is written: it is also what tells a directory of ours from any other. Later lines are
written after their tensors' bytes, but nothing is fsynced then: the journal is a claim, and a resumed run believes it
where the bytes on disk match the digest in it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from typing import Any

import xxhash

from rlmerge.checkpoint import strictjson
from rlmerge.checkpoint.durable import sync_directory, write_file
from rlmerge.checkpoint.failures import writing
from rlmerge.checkpoint.paths import is_plain_name, open_regular
from rlmerge.errors import CheckpointError
from rlmerge.frozen import frozen

NAME = "journal.jsonl"
FRESH = "journal.new"
"""A journal on its way to its name."""

_MAX_LINE = 2**26


@frozen(slots=True)
class JournalEntry:
    """A finished tensor: the shard it is in, the hex xxh3-64 of its bytes, and whatever the merge reported about it."""

    tensor: str
    shard: str
    xxh3: str
    stats: Mapping[str, Any]


def line(content: Mapping[str, Any]) -> bytes:
    """One line of a journal."""
    text = json.dumps(content).encode()
    return f"{xxhash.xxh3_64_hexdigest(text)} ".encode() + text + b"\n"


class Journal:
    """An append-only journal in ``directory``, begun afresh with the plan's digest and the entries that were kept.

    ``entries`` holds what it records, by tensor.
    """

    def __init__(self, directory: Path, plan_digest: str, kept: Iterable[JournalEntry] = ()) -> None:
        self.entries = {entry.tensor: entry for entry in kept}
        self._path = directory / NAME
        self._fd = -1
        begun = [line({"plan": plan_digest}), *(line(_content(entry)) for entry in self.entries.values())]
        with writing(self._path):
            # The old journal stays in place until the new one is whole.
            fresh = directory / FRESH
            fresh.unlink(missing_ok=True)
            write_file(fresh, b"".join(begun))
            fresh.replace(self._path)
            sync_directory(directory)
            self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)

    def append(self, entry: JournalEntry) -> None:
        """Record a finished tensor."""
        left = line(_content(entry))
        with writing(self._path):
            while left:
                left = left[os.write(self._fd, left) :]
        self.entries[entry.tensor] = entry

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read_journal(directory: Path) -> tuple[str, list[JournalEntry]] | None:
    """The plan's digest and the entries up to the first line that is torn, altered, or no entry.

    None without a journal, where it cannot be read, or if its first line is none.
    """
    found = lines(directory / NAME)
    try:
        first = next(found, None)
        if not isinstance(first, dict) or not isinstance(first.get("plan"), str):
            return None
        entries: list[JournalEntry] = []
        for content in found:
            entry = _entry(content)
            if entry is None:
                break
            entries.append(entry)
        return first["plan"], entries
    except (CheckpointError, OSError):
        return None
    finally:
        found.close()


def lines(path: Path) -> Generator[Any]:
    """The content of every line up to the first that is torn or altered; CheckpointError if there is no such file."""
    with open(open_regular(path, follow=False), "rb") as handle:  # noqa: PTH123 - of a descriptor
        while (read := handle.readline(_MAX_LINE)).endswith(b"\n"):
            digest, _, text = read[:-1].partition(b" ")
            if xxhash.xxh3_64_hexdigest(text).encode() != digest:
                return
            try:
                content = strictjson.parse(text, str(path))
            except CheckpointError:
                return
            yield content


def _content(entry: JournalEntry) -> dict[str, Any]:
    """An entry as its line holds it; ``asdict`` would copy every number of the stats."""
    return {"tensor": entry.tensor, "shard": entry.shard, "xxh3": entry.xxh3, "stats": entry.stats}


def _entry(content: Any) -> JournalEntry | None:
    if not isinstance(content, dict) or content.keys() != {"tensor", "shard", "xxh3", "stats"}:
        return None
    tensor, shard, xxh3, stats = (content[key] for key in ("tensor", "shard", "xxh3", "stats"))
    if not all(isinstance(text, str) for text in (tensor, shard, xxh3)) or not isinstance(stats, dict):
        return None
    return JournalEntry(tensor, shard, xxh3, stats) if is_plain_name(shard) else None
