"""The files beside the weights: configuration, tokenizer and the lock file from which a merge can be rebuilt."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import yaml

from rlmerge._version import __version__
from rlmerge.checkpoint import PartialDirectory

from .plan import Plan

LOCK = "rlmerge.lock.yaml"


def write_side_files(plan: Plan, partial: PartialDirectory, documents: Mapping[str, bytes]) -> None:
    """Write what was read or rendered when the plan was made, then lock file and documents."""
    last = {LOCK: lock_file(plan), **documents}
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


def lock_file(plan: Plan) -> bytes:
    """Recipe, input identities, seed, options that decide bytes, versions; no times, so that equal merges agree."""
    content: dict[str, Any] = {
        "rlmerge_lock": 1,
        "recipe": yaml.safe_load(plan.recipe.text),
        "options": {
            "seed": plan.options.seed,
            "dtype": plan.options.dtype,
            "out_dtype": plan.options.out_dtype,
            "rounding": plan.options.rounding,
            "shard_size": plan.options.shard_size,
            "on_nonfinite": plan.options.on_nonfinite,
        },
        "inputs": [
            {
                "model": str(model),
                "revision": plan.opened[model.identity].revision,
                "fingerprint": plan.opened[model.identity].fingerprint(),
            }
            for model in plan.recipe.models
            if not model.stage
        ],
        **{
            name: [{"directory": each.directory, "fingerprint": each.fingerprint} for each in found]
            for name, found in plan.inputs.items()
        },
        "versions": {
            "rlmerge": __version__,
            "python": platform.python_version(),
            "numpy": version("numpy"),
            "llvmlite": version("llvmlite"),
        },
    }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode()
