"""What a run has sent to an object store: a line for each object, beside the run's journal and written like it.

A line is added when the store has confirmed the object, and is on disk before the file here is emptied.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlmerge.checkpoint.durable import sync_directory, write_file
from rlmerge.checkpoint.failures import writing
from rlmerge.checkpoint.journal import line, lines
from rlmerge.checkpoint.manifest import FileRecord
from rlmerge.checkpoint.paths import is_plain_name
from rlmerge.checkpoint.remote.store import ObjectStamp
from rlmerge.errors import CheckpointError

NAME = "uploads.jsonl"
FRESH = "uploads.new"


class Sent:
    """The record in ``directory``, begun afresh with what was kept; ``files`` and ``stamps`` are by name.

    ``staged`` says that the objects wait in ``.<folder>.partial`` beside the target.
    """

    def __init__(
        self,
        directory: Path | None,
        address: str,
        plan: str,
        staged: bool,
        files: Mapping[str, FileRecord],
        stamps: Mapping[str, ObjectStamp],
    ) -> None:
        self.address, self.plan, self.staged = address, plan, staged
        self.files = dict(files)
        self.stamps = dict(stamps)
        self._fd = -1
        if directory is None:
            return
        self._path = directory / NAME
        head = line({"address": address, "plan": plan, "staged": staged})
        begun = [head, *(_entry(name, file, self.stamps[name]) for name, file in self.files.items())]
        with writing(self._path):
            fresh = directory / FRESH
            fresh.unlink(missing_ok=True)
            write_file(fresh, b"".join(begun))
            fresh.replace(self._path)
            sync_directory(directory)
            self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)

    def is_of(self, address: str, plan: str) -> bool:
        """Whether this is what a run of that plan sent there."""
        return (self.address, self.plan) == (address, plan)

    def add(self, name: str, file: FileRecord, stamp: ObjectStamp) -> None:
        """Record an object; it is on disk when this returns."""
        left = _entry(name, file, stamp)
        with writing(self._path):
            while left:
                left = left[os.write(self._fd, left) :]
            os.fsync(self._fd)
        self.files[name], self.stamps[name] = file, stamp

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read_sent(directory: Path) -> Sent | None:
    """The record of an earlier run up to the first line that is torn or altered; None where there is none."""
    try:
        found = lines(directory / NAME)
        head = next(found, None)
        if not isinstance(head, dict) or set(head) != {"address", "plan", "staged"}:
            return None
        sent = Sent(None, str(head["address"]), str(head["plan"]), head["staged"] is True, {}, {})
        for content in found:
            if not _is_entry(content):
                break
            sent.files[content["name"]] = FileRecord(content["blake3"], content["bytes"])
            sent.stamps[content["name"]] = ObjectStamp(content["bytes"], content["tag"])
        return sent
    except (CheckpointError, OSError):
        return None


def _entry(name: str, file: FileRecord, stamp: ObjectStamp) -> bytes:
    return line({"name": name, "blake3": file.digest, "bytes": file.bytes, "tag": stamp.tag})


def _is_entry(content: Any) -> bool:
    if not isinstance(content, dict) or set(content) != {"name", "blake3", "bytes", "tag"}:
        return False
    texts = all(isinstance(content[key], str) for key in ("name", "blake3", "tag"))
    return texts and type(content["bytes"]) is int and is_plain_name(content["name"])
