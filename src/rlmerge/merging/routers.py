"""How far a merge and its experts moved the routers of a mixture of experts: read once more when all is written.

Routers are a thousandth of a model, and what they were trained with is what they fit. The sums that all tensors are
accounted with do not say how far they are from each model's own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from rlmerge.checkpoint import ShardPlan, Source
from rlmerge.checkpoint.failures import writing
from rlmerge.checkpoint.header import remote_file
from rlmerge.checkpoint.module_kinds import ROUTER, kind_of
from rlmerge.kernels.dtypes import decode

from .account import RouterOutcome, Routers, Tally
from .job import Job
from .plan import Plan

MIXED_ROUTERS = (
    "the routers ({tensors}) are merged from several experts, and a merged router may send tokens where no expert "
    "expects them; a rule with `filter: router` takes them from one model (docs/recipes.md)"
)

_CHUNK = 1 << 16


def measure_routers(plan: Plan, folder: Path, tally: Tally) -> Routers | None:
    """What became of the routers in the finished shards of ``folder``; None where none was merged with a base.

    ``tally`` is the account of them. CheckpointError or RunError if a file cannot be read any more.
    """
    jobs = [job for job in plan.merged if job.base is not None and kind_of(job.name) == ROUTER]
    if not jobs or not tally.tensors:
        return None
    places = _places(plan.shards)
    sums = [np.zeros(3) for _ in plan.experts]
    moved = np.zeros(2)
    with np.errstate(all="ignore"):  # What is not finite was let pass by request; figures that are not, are None.
        for job in jobs:
            if job.encoder is None:
                _add(job, places[job.name], folder, sums, moved)
    outcomes = [
        RouterOutcome(**asdict(each), moved=_root(square, whole), distance=_root(apart, whole))
        for each, (square, apart, whole) in zip(tally.survival(), sums, strict=True)
    ]
    parameters = sum(job.output.numel for job in jobs)
    return Routers(len(jobs), parameters, tally.changed, tally.survived, _root(*moved), tuple(outcomes))


def _add(job: Job, at: tuple[str, int], folder: Path, sums: list[np.ndarray], moved: np.ndarray) -> None:
    """Add squares of one tensor: to ``sums`` by model ‖τ‖², ‖out − θ_k‖² and ‖θ₀‖², to ``moved`` ‖out − θ₀‖², ‖θ₀‖²."""
    name, offset = at
    path = folder / name
    assert job.base is not None
    file = remote_file(path)
    if file is not None:
        file.prefetch(offset, offset + job.output.nbytes)
    for start in range(0, job.output.numel, _CHUNK):
        stop = min(job.output.numel, start + _CHUNK)
        dtype = job.output.dtype
        first = offset + start * dtype.itemsize
        if file is not None:
            stored = file.read(first, first + (stop - start) * dtype.itemsize).view(dtype.storage)
        else:
            with writing(path):
                stored = np.fromfile(path, dtype.storage, stop - start, offset=first)
        out, base = decode(stored, dtype).astype(np.float64), _values(job.base, start, stop)
        whole = _square(base)
        moved += _square(out - base), whole
        for model, source in zip(job.models, job.experts, strict=True):
            values = _values(source, start, stop)
            sums[model] += _square(values - base), _square(out - values), whole


def _values(source: Source, start: int, stop: int) -> np.ndarray:
    values = decode(source.read(start, stop), source.dtype).astype(np.float64)
    source.release(start, stop)
    return values


def _square(values: np.ndarray) -> float:
    return float(np.square(values).sum())


def _root(part: float, whole: float) -> float | None:
    found = math.sqrt(part / whole) if whole > 0 else math.nan
    return found if math.isfinite(found) else None


def _places(shards: Sequence[ShardPlan]) -> dict[str, tuple[str, int]]:
    """The shard that holds each tensor, and the byte of the file at which it begins."""
    found: dict[str, tuple[str, int]] = {}
    for shard in shards:
        offset = len(shard.header)
        for tensor in shard.tensors:
            found[tensor.name] = shard.name, offset
            offset += tensor.nbytes
    return found
