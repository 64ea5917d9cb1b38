"""Statistics of earlier scans, kept by the content they were computed from.

One small ``.npz`` a scan under ``$XDG_CACHE_HOME/rlmerge/statistics`` (``~/.cache`` by default). The name is a digest
of the models' editions, the statistics' definitions and every value they use; an unreadable file is ignored.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from rlmerge.kernels.values import Static, typed
from rlmerge.methods import Statistic, arguments

from .code import code_digest
from .job import Job
from .plan import Plan

Known = dict[str, dict[str, np.ndarray]]
_SEPARATOR = "\x1f"


def cache_directory() -> Path:
    """Where scans are kept."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "rlmerge" / "statistics"


def _file(plan: Plan) -> Path:
    content = {
        "code": code_digest(),
        "models": [model.edition for model in plan.models],
        "inputs": {name: [x.fingerprint for x in found] for name, found in plan.inputs.items()},
        "method": plan.method.name,
        "static": {name: str(value) for name, value in plan.recipe.static().items()},
        "seed": plan.options.seed,
        "nonfinite": plan.options.on_nonfinite,
        "tensors": {
            job.name: [job.scope, [_key(job, statistic) for stage in job.stages for statistic in stage]]
            for job in plan.merged
        },
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return cache_directory() / f"{digest}.npz"


def _key(job: Job, statistic: Statistic) -> list[Any]:
    """What one statistic of one tensor depends on."""
    known = {"row": 0.0, **job.values, **dict.fromkeys(s.name for stage in job.stages for s in stage), "uniform": None}
    known |= {**dict.fromkeys(job.method.inputs if job.method else ()), "field": None}
    used = {**arguments(statistic.formula, known), **{name: known[name] for name in statistic.uses}}
    plain = {
        name: str(value) if isinstance(typed(value), Static) else np.asarray(value).tolist()
        for name, value in used.items()
        if isinstance(value, float | int | str | np.ndarray)
    }
    return [statistic.name, statistic.reduce, statistic.over, job.operands.real.name, plain]


def _cached(plan: Plan) -> bool:
    """Whether this scan is kept. Functions of other packages may change without notice; what they give is not."""
    statistics = {s for job in plan.merged for stage in job.stages for s in stage}
    used = [f for s in statistics for f in (s.formula, s.rank, s.skip) if f is not None]
    return plan.options.cache and bool(used) and all(f.__module__.startswith("rlmerge.") for f in used)


def load(plan: Plan) -> Known:
    """Statistics of an equal scan, or nothing."""
    if not _cached(plan):
        return {}
    known: Known = {}
    try:
        with np.load(_file(plan), allow_pickle=False) as archive:
            for key in archive.files:
                tensor, _, name = key.partition(_SEPARATOR)
                known.setdefault(tensor, {})[name] = archive[key]
    except Exception:  # a damaged archive raises almost anything, and costs no more than a scan
        return {}
    return known


def save(plan: Plan, known: Known) -> None:
    """Keep a finished scan; a cache that cannot be written costs nothing but the next scan."""
    if not _cached(plan):
        return
    arrays = {f"{tensor}{_SEPARATOR}{name}": value for tensor, found in known.items() for name, value in found.items()}
    with suppress(OSError, RuntimeError):  # RuntimeError: there is no home directory
        target = _file(plan)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            fresh = Path(folder) / target.name
            np.savez(fresh, allow_pickle=False, **arrays)
            fresh.replace(target)
