"""Statistics of earlier scans, kept by the content they were computed from.

One small file a scan under ``$XDG_CACHE_HOME/rlmerge/statistics`` (``~/.cache`` by default). The name is a digest of
the models' editions, the statistics' definitions and every value they use. The content is a ``.npz`` behind a BLAKE3 of
it under a key that only this user can read: what is damaged, or was written by somebody else, is ignored.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
from blake3 import blake3

from rlmerge.checkpoint.paths import read_bytes
from rlmerge.errors import CheckpointError

from .code import code_digest
from .plan import Plan
from .pool import depends

Known = dict[str, dict[str, np.ndarray]]
_SEPARATOR = "\x1f"
_KEY = "statistics.key"
_DIGEST = 32
_LARGEST = 2**30
_FORGOTTEN = 24 * 3600
"""Seconds after which a file on its way into the cache belongs to a process that was killed."""


def cache_directory() -> Path:
    """Where scans are kept."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "rlmerge" / "statistics"


def _file(plan: Plan) -> Path:
    recipe = plan.recipe
    content = {
        "code": code_digest(),
        "models": [model.edition for model in plan.models],
        "inputs": {name: [x.fingerprint for x in found] for name, found in plan.inputs.items()},
        "methods": [
            [recipe.method_of(module).name, {name: str(value) for name, value in recipe.static(module).items()}]
            for module in recipe.modules
        ],
        "seed": plan.options.seed,
        "nonfinite": plan.options.on_nonfinite,
        "tensors": {
            job.name: [job.scope, [depends(job, statistic) for stage in job.stages for statistic in stage]]
            for job in plan.merged
        },
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return cache_directory() / f"{digest}.statistics"


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
        content = read_bytes(_file(plan), _LARGEST)
        if content[:_DIGEST] != _digest(content[_DIGEST:], _key()):
            return {}
        with np.load(io.BytesIO(content[_DIGEST:]), allow_pickle=False) as archive:
            for name in archive.files:
                tensor, _, statistic = name.partition(_SEPARATOR)
                known.setdefault(tensor, {})[statistic] = archive[name]
    except Exception:  # whatever is wrong with it costs no more than a scan
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
        _clean(target.parent)
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **arrays)
        _replace(target, _digest(content.getvalue(), _key()) + content.getvalue())


def _digest(content: bytes, key: bytes) -> bytes:
    return blake3(content, key=key, max_threads=1).digest()


def _key() -> bytes:
    """This user's secret, made when there is none; OSError if there can be none."""
    file = cache_directory().with_name(_KEY)
    with suppress(CheckpointError):
        key = read_bytes(file, blake3.key_size)
        if len(key) == blake3.key_size:
            return key
    file.parent.mkdir(parents=True, exist_ok=True)
    key = os.urandom(blake3.key_size)
    _replace(file, key)
    return key


def _replace(file: Path, content: bytes) -> None:
    """Write a file that is there as a whole or not at all, and that only this user can read."""
    handle, name = tempfile.mkstemp(prefix=".", dir=file.parent)
    try:
        with open(handle, "wb") as out:  # noqa: PTH123 - of a descriptor
            out.write(content)
        Path(name).replace(file)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def _clean(folder: Path) -> None:
    """Remove what killed processes left on its way into the cache."""
    for entry in folder.iterdir():
        if entry.name.startswith((".", "tmp")) and time.time() - entry.lstat().st_mtime > _FORGOTTEN:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
