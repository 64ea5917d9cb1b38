"""Where the output goes: whether it may be created there, and whether it fits on the disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from rlmerge.addresses import addressed
from rlmerge.checkpoint import Checkpoint, ShardPlan
from rlmerge.checkpoint.failures import preparing
from rlmerge.checkpoint.partial import uploading
from rlmerge.checkpoint.target import check_target, partial_path
from rlmerge.errors import RequestError


def free_space(out: Path) -> int:
    """Bytes that may be written: what is free there, and what an interrupted run of the same output already holds."""
    held = 0
    for folder, _, names in os.walk(partial_path(out)):
        for name in names:
            with suppress(OSError):  # Its run may end at this moment.
                held += os.lstat(os.path.join(folder, name)).st_blocks * 512  # noqa: PTH118
    return shutil.disk_usage(_existing(out)).free + held


def held_here(out: Path | None, shards: Sequence[ShardPlan]) -> int:
    """Bytes of disk that an output takes on this machine: all of it, or of one that is uploaded a few shards."""
    upload = None if out is None else uploading(out)
    sizes = sorted((shard.size for shard in shards), reverse=True)
    return sum(sizes if upload is None else sizes[: upload.most_shards])


def check_space(out: Path, needed: int, what: str = "the merge") -> None:
    """RequestError if ``needed`` bytes are not free where ``out`` goes."""
    free = free_space(out)
    if free < needed:
        raise RequestError(
            f"{what} writes {needed:,} bytes, but only {free:,} are free there",
            where=str(out),
            hint="Free some space, or write to another disk with -o.",
        )


def check_place(out: Path, models: Iterable[Checkpoint], force: bool) -> None:
    """RequestError if ``out`` exists without ``force``, cannot be created, or would be in, hold or replace an input."""
    models = list(models)
    target = Path(os.path.abspath(out))  # noqa: PTH100 - a link at the target itself must stay visible
    with preparing(target):
        place = target.parent.resolve() / target.name
        for model in models:
            _check_apart(place, target.resolve(), model)
        check_target(target, force)
    if (upload := uploading(target)) is not None:
        for model in models:
            _check_apart_there(upload.address, model)
        upload.check(partial_path(target), force)
    parent = _existing(target)
    effective = os.access in os.supports_effective_ids
    if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK, effective_ids=effective):
        return
    reason = f"no permission to write to {parent}" if parent.is_dir() else f"{parent} is not a directory"
    hint = "Choose an output directory that you may write to."
    raise RequestError(f"the output cannot be created there ({reason})", where=str(target), hint=hint)


def _check_apart(place: Path, linked: Path, model: Checkpoint) -> None:
    if model.path in (place, linked):
        what = f"is {model.reference}, an input of the merge"
    elif model.path in place.parents:
        what = f"lies inside {model.reference}, an input of the merge"
    elif place in model.path.parents:
        what = f"holds {model.reference}, an input of the merge"
    else:
        return
    raise RequestError(what, where=str(place), hint="Choose an output directory apart from the inputs.")


def _check_apart_there(address: str, model: Checkpoint) -> None:
    place = addressed(str(model.path))
    if f"{place}/".startswith(f"{address}/") or f"{address}/".startswith(f"{place}/"):
        what = f"is, holds or lies inside {model.reference}, an input of the merge"
        raise RequestError(what, where=address, hint="Choose an output folder apart from the inputs.")


def _existing(out: Path) -> Path:
    """The nearest directory above ``out`` that exists."""
    place = out.absolute().parent
    while not os.path.exists(place):  # noqa: PTH110 - Path.exists raises where a directory cannot be entered
        place = place.parent
    return place
