"""The folder of an object store that becomes a model, and the one beside it in which a replacement waits.

Into a folder that holds nothing, files go under their final names: without an index they are no model. What makes a
model of them comes last. An old model is replaced from ``.<folder>.partial``: it is removed, index and weights first,
and the new one is copied into its place within the store.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Set
from functools import cached_property
from pathlib import Path

from rlmerge.checkpoint import manifest as manifests
from rlmerge.checkpoint.directory import INDEX, SINGLE
from rlmerge.checkpoint.manifest import FileRecord
from rlmerge.checkpoint.remote.hold import MARKER
from rlmerge.checkpoint.remote.mirror import WEIGHTS, is_small
from rlmerge.checkpoint.remote.outbox import ALONE, Outbox
from rlmerge.checkpoint.remote.sent import Sent
from rlmerge.checkpoint.remote.store import ObjectStamp
from rlmerge.checkpoint.side_files import is_wanted
from rlmerge.errors import RequestError, RunError

LAST = (SINGLE, INDEX, manifests.NAME)
"""What makes a folder a model, in the order in which it is written."""

_BESIDE = ("README.md", "rlmerge.lock.yaml")
"""What a merge makes itself, beside weights and what it copies."""

_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")


class Folder:
    """The folder at ``address``; everything raises RunError when the store fails."""

    def __init__(self, address: str) -> None:
        self.address = address
        above, _, self.name = address.rpartition("/")
        self.above = above
        self.staging = f".{self.name}.partial"

    @cached_property
    def outbox(self) -> Outbox:
        """The folder above, through which target and staging are written."""
        return Outbox(self.above)

    def place(self, name: str, staged: bool) -> str:
        """Where a file goes before the model is whole."""
        return f"{self.staging if staged else self.name}/{name}"

    def held(self) -> dict[str, ObjectStamp]:
        """What the folder holds now."""
        return self.outbox.below(self.name)

    def check(self, earlier: Sent | None, force: bool) -> None:
        """RequestError if the folder may not become the output: it holds something, and is not to be replaced.

        What an interrupted run has left of which ``earlier`` is the record is no obstacle.
        """
        there = self.held()
        ours = earlier if earlier is not None and earlier.address == self.address else None
        if ours and not ours.staged and manifests.NAME not in there:
            strangers = sorted(name for name in there if not (name in ours.stamps or is_written(name)))
            if strangers:
                hint = "An interrupted merge has its work beside it. Move it away, then run again with --resume."
                raise RequestError("is not of this merge", where=f"{self.address}/{strangers[0]}", hint=hint)
            return
        if not there:
            return
        if not force:
            hint = "Choose another folder, or replace what is there with --force."
            if ours and ours.staged:
                hint = "A merge that replaces it was interrupted: complete it with --force --resume."
            elif ours:
                hint = "A run that was killed had completed it: check it with rlmerge verify; --force replaces it."
            raise RequestError("the output exists", where=self.address, hint=hint)
        # Of a move that was interrupted, some small files may be all that there is.
        if not is_model(there) and not (ours and all(map(is_written, there))):
            hint = "--force replaces the folder of one model only; choose another folder."
            raise RequestError("is not the folder of a model, and would be deleted", where=self.address, hint=hint)

    def check_staging(self) -> None:
        """RequestError if the folder beside the target is somebody else's: it holds something, but no marker."""
        found = self.outbox.below(self.staging)
        if found and MARKER not in found:
            what = f"is in the way: it holds no {MARKER}, as the folder of an interrupted merge does"
            hint = "Look at what is in it and move it away, or choose another output."
            raise RequestError(what, where=f"{self.above}/{self.staging}", hint=hint)

    def clear_staging(self, *, but_marker: bool = False) -> None:
        """Remove what is in ``.<folder>.partial``, the marker last if at all."""
        found = sorted(self.outbox.below(self.staging))
        self.outbox.delete([f"{self.staging}/{name}" for name in found if name != MARKER])
        if not but_marker:
            self.outbox.delete([f"{self.staging}/{name}" for name in found if name == MARKER])

    def remove(self, names: Iterable[str]) -> None:
        """Remove files of the folder, what makes a model of it first."""
        wanted = set(names)
        for name in reversed(LAST):
            if name in wanted:
                self.outbox.delete([f"{self.name}/{name}"])
        self.outbox.delete([f"{self.name}/{name}" for name in sorted(wanted - set(LAST))])

    def check_unchanged(self, stamps: Mapping[str, ObjectStamp], staged: bool) -> None:
        """RunError if the store holds other objects than those that were sent."""
        found = self.outbox.now(self.place(name, staged) for name in stamps)
        wrong = [name for name, stamp in stamps.items() if found[self.place(name, staged)] != stamp]
        if wrong:
            what = "is no longer the object that was uploaded: somebody else writes there"
            raise RunError(what, where=f"{self.above}/{self.place(min(wrong), staged)}", hint=ALONE)

    def complete(self, local: Path, files: Mapping[str, FileRecord], sent: Set[str], old: Set[str]) -> None:
        """Make a model of files that are there already, as ``sent`` says, with the last ones of ``local``."""
        last = [name for name in LAST if name in files]
        strangers = set(self.held()) - sent - set(last) - old
        if strangers:
            hint = "Move it away, then run again with --resume to continue."
            raise RunError("appeared while the merge ran", where=f"{self.address}/{min(strangers)}", hint=hint)
        self.remove(old - sent - set(last))
        for name in last:
            self.outbox.upload(local / name, self.place(name, False), files[name])

    def replace(self, stamps: Mapping[str, ObjectStamp]) -> None:
        """Replace the old model by the staged one: for the time of the copies there is none."""
        old = self.held()
        if old and not is_model(old) and not all(map(is_written, old)):
            what = "is no longer the folder of one model, and would be deleted"
            raise RunError(what, where=self.address, hint="Move it away, then run again with --force --resume.")
        self.remove(old)

        def copy(name: str) -> ObjectStamp:
            return self.outbox.copy(self.place(name, True), self.place(name, False), stamps[name])

        self.outbox.together(copy, [name for name in stamps if name not in LAST])
        for name in LAST:
            if name in stamps:
                copy(name)


def is_model(names: Iterable[str]) -> bool:
    """Whether a folder is that of one model, and of nothing else that would be lost with it."""
    marks = ("config.json", "adapter_config.json", INDEX, manifests.NAME)
    names = list(names)
    found = any(name in marks or (name.endswith(WEIGHTS) and "/" not in name) for name in names)
    return found and all("/" not in name or is_small(name) for name in names)


def is_written(name: str) -> bool:
    """Whether a merge may have written a file of this name."""
    if "/" in name:
        return is_small(name)
    return name in (*LAST, *_BESIDE) or _SHARD.fullmatch(name) is not None or is_wanted(name)
