"""One output made by several processes: each merges its share of the shards in a directory of its own.

``.<name>.partial/share-3-of-8`` is to its process what ``.<name>.partial`` is to a run alone: journal, lock and
finished shards. The directories need nothing but a shared file system. At the end ``gather`` puts everything where one
run would have left it, and that run goes on: reads all shards again, and seals.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rlmerge.checkpoint import journal as journals
from rlmerge.checkpoint.durable import sync_directory
from rlmerge.checkpoint.failures import preparing, writing
from rlmerge.checkpoint.journal import Journal, JournalEntry, read_journal
from rlmerge.checkpoint.layout import ShardPlan
from rlmerge.checkpoint.target import lock
from rlmerge.errors import RequestError

MOST = 4096
"""Processes that one merge may be shared by."""

_WRITTEN = re.compile(r"(\d{1,4})/(\d{1,4})", re.ASCII)
_NAME = re.compile(r"share-([1-9]\d{0,3})-of-([1-9]\d{0,3})", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Share:
    """The ``number``-th of ``count`` shares, counted from 1."""

    count: int
    number: int

    def __post_init__(self) -> None:
        """ValueError for numbers that are none of a share."""
        if not 1 <= self.number <= self.count <= MOST:
            raise ValueError(f"{self.number}/{self.count} is no share: give one of 1/{self.count} to the last")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Share:
        """The share written as ``3/8``; ValueError for anything else."""
        found = _WRITTEN.fullmatch(text.strip())
        if not found:
            raise ValueError(f"'{text}' is not a share; write 3/8 for the third of eight")
        return cls(int(found[2]), int(found[1]))

    @property
    def directory(self) -> str:
        """The name of its directory."""
        return f"share-{self.number}-of-{self.count}"

    def of(self, costs: Sequence[tuple[ShardPlan, int]]) -> tuple[ShardPlan, ...]:
        """Its shards, in order: the costliest first to whoever has least, so that every process finds the same."""
        loads, mine = [0] * self.count, set[str]()
        for shard, cost in sorted(costs, key=lambda pair: (-pair[1], pair[0].name)):
            taker = min(range(self.count), key=lambda k: loads[k])
            loads[taker] += cost
            if taker == self.number - 1:
                mine.add(shard.name)
        return tuple(shard for shard, _ in costs if shard.name in mine)


def shares_in(home: Path) -> dict[Share, Path]:
    """The directories of shares in ``home``, in order."""
    with preparing(home):
        names = [_NAME.fullmatch(entry.name) for entry in home.iterdir()] if home.is_dir() else []
    pairs = [(int(name[2]), int(name[1])) for name in names if name]
    found = sorted(Share(count, number) for count, number in pairs if number <= count)
    return {share: home / share.directory for share in found}


def enter(home: Path, share: Share, plan_digest: str) -> int:
    """Take part in the merge that grows in ``home``; the descriptor that keeps others from sealing it meanwhile.

    RequestError if a process works there alone, or the shares there are of another number or another merge.
    """
    held = lock(home, shared=True)
    try:
        if any(os.path.lexists(home / name) for name in (journals.NAME, "model")):
            hint = "Continue it with --resume and without --shards, or remove that directory."
            raise RequestError("an interrupted run without --shards left its work there", where=str(home), hint=hint)
        for other, directory in shares_in(home).items():
            if other.count != share.count:
                what = f"the merge there is shared by {other.count} processes, not by {share.count}"
                hint = f"Give every process its --shards N/{other.count}, or remove that directory."
                raise RequestError(what, where=str(home), hint=hint)
            found = read_journal(directory)
            if other != share and found is not None and found[0] != plan_digest:
                raise _another(directory, other)
        return held
    except BaseException:
        os.close(held)
        with suppress(OSError):
            home.rmdir()  # if it is empty, as we made it
        raise


def gather(
    home: Path, plan_digest: str, shards: Sequence[ShardPlan], names_of: Callable[[Share], Sequence[str]]
) -> None:
    """Bring the shards of all shares to where a run alone leaves them, with one journal; ``home`` must be locked.

    ``names_of`` gives the names of a share's shards. RequestError if there are no shares, or one is missing, unfinished
    or of another merge; then nothing has changed. A killed call is repeated.
    """
    found = shares_in(home)
    alone = read_journal(home)
    if not found and alone is None:
        hint = "Merge its shares first, with: rlmerge merge … --shards 1/N, 2/N …"
        raise RequestError("there is nothing to seal", where=str(home), hint=hint)
    entries: dict[str, JournalEntry] = {}
    places: dict[str, Path] = {}
    for share, directory in found.items():
        journal = read_journal(directory)
        if journal is None:
            continue
        if journal[0] != plan_digest:
            raise _another(directory, share)
        _note(directory / "model", journal[1], entries, places)
    if alone is not None:
        if alone[0] != plan_digest:
            raise _another(home, None)
        _note(home / "model", alone[1], entries, places)
    if found:
        count = next(iter(found)).count
        owners = {str(share): names_of(share) for share in (Share(count, k) for k in range(1, count + 1))}
        _check_complete(home, shards, set(entries), owners)
    Journal(home, plan_digest, entries.values()).close()
    with writing(home):
        (home / "model").mkdir(exist_ok=True)
        for name, place in places.items():
            if place.parent != home:
                (place / name).rename(home / "model" / name)
        sync_directory(home / "model")
        for directory in found.values():
            shutil.rmtree(directory)


def discard(home: Path) -> None:
    """Remove what all shares left."""
    for directory in shares_in(home).values():
        shutil.rmtree(directory, ignore_errors=True)


def _note(
    model: Path, journal: Sequence[JournalEntry], entries: dict[str, JournalEntry], places: dict[str, Path]
) -> None:
    """Take up the entries of a journal whose shards are in the directory ``model``."""
    for entry in journal:
        if (model / entry.shard).is_file() and not model.is_symlink():
            entries[entry.tensor] = entry
            places[entry.shard] = model


def _check_complete(
    home: Path, shards: Sequence[ShardPlan], finished: set[str], owners: Mapping[str, Sequence[str]]
) -> None:
    """RequestError with the shares that have shards to finish."""
    unfinished = {shard.name for shard in shards if any(tensor.name not in finished for tensor in shard.tensors)}
    late = [share for share, names in owners.items() if unfinished.intersection(names)]
    if late:
        listed = ", ".join(late[:8]) + (f" and {len(late) - 8} more" if len(late) > 8 else "")
        what = f"{len(unfinished)} of {len(shards)} shards are not finished: those of share {listed}"
        hint = f"Run what is missing first: rlmerge merge … --shards {late[0]} --resume"
        raise RequestError(what, where=str(home), hint=hint)


def _another(directory: Path, share: Share | None) -> RequestError:
    who = f"share {share} there" if share else "the work there"
    what = f"{who} is of a merge with another recipe, input, option or version"
    hint = "Give every process the same arguments and models, or remove that directory."
    return RequestError(what, where=str(directory), hint=hint)
