"""The files beside the weights: configuration, tokenizer and the lock file from which a merge can be rebuilt."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import llvmlite
import numpy as np
import xxhash
import yaml

from rlmerge._version import __version__
from rlmerge.checkpoint import PartialDirectory

from .plan import Plan

LOCK = "rlmerge.lock.yaml"
_PIECE = 4 * 2**20


def write_side_files(
    plan: Plan, partial: PartialDirectory, documents: Mapping[str, bytes], contents: Mapping[str, str]
) -> None:
    """Write what was read or rendered when the plan was made, then lock file and documents."""
    last = {LOCK: lock_file(plan, contents), **documents}
    for name, content in plan.beside.files.items():
        if name in last:
            continue
        if isinstance(content, bytes):
            partial.write_file(name, content)
        else:
            content.check()
            partial.copy_file(content.path, name)
    for name, data in last.items():
        partial.write_file(name, data)


def lock_file(plan: Plan, contents: Mapping[str, str]) -> bytes:
    """Recipe, input identities, seed, options that decide bytes, versions; no times, so that equal merges agree.

    ``contents`` are digests of all that was read of base and experts.
    """
    recipes = [yaml.safe_load(each.recipe.text) for each in (*plan.before, plan)]
    content: dict[str, Any] = {
        "rlmerge_lock": 1,
        "recipe": recipes if plan.before else recipes[0],
        "options": {
            "seed": plan.options.seed,
            "dtype": plan.options.dtype,
            "out_dtype": plan.options.out_dtype,
            "rounding": plan.options.rounding,
            "shard_size": plan.options.shard_size,
            "on_nonfinite": plan.options.on_nonfinite,
        },
        "inputs": [
            {"model": str(model), "revision": opened.revision, "fingerprint": opened.fingerprint()}
            for model, opened in plan.origins.values()
        ],
        **{
            name: [{"directory": each.directory, "fingerprint": each.fingerprint} for each in found]
            for name, found in plan.inputs.items()
        },
        "contents": dict(contents),
        "files": file_digests(plan),
        "versions": {
            "rlmerge": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "llvmlite": llvmlite.__version__,
        },
    }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode()


def file_digests(plan: Plan) -> dict[str, str]:
    """xxh3-128 of every file beside the weights, which was read or rendered when the plan was made."""
    found: dict[str, str] = {}
    for name, content in sorted(plan.beside.files.items()):
        digest = xxhash.xxh3_128()
        if isinstance(content, bytes):
            digest.update(content)
        else:
            for start in range(0, content.size, _PIECE):
                digest.update(content.copy(start, min(content.size, start + _PIECE)))
        found[name] = digest.hexdigest()
    return found
