"""The files beside the weights: configuration, tokenizer and the lock file from which a merge can be rebuilt."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import yaml

from rlmerge._version import __version__
from rlmerge.checkpoint import PartialDirectory
from rlmerge.kernels.dtypes import MERGEABLE

from .plan import Plan

LOCK = "rlmerge.lock.yaml"
_CONFIG = "config.json"
_TEMPLATE = "chat_template.jinja"


def write_side_files(plan: Plan, partial: PartialDirectory, documents: Mapping[str, bytes]) -> None:
    """Copy the template model's files byte for byte, adapt what the recipe changes, and add lock file and documents."""
    replaced = {LOCK: lock_file(plan), **documents}
    config = adapted_config(plan)
    if config is not None:
        replaced[_CONFIG] = config
    if plan.recipe.chat_template:
        replaced[_TEMPLATE] = plan.recipe.chat_template.encode()
    for source in plan.template.side_files:
        name = source.relative_to(plan.template.path).as_posix()
        if name not in replaced:
            partial.copy_file(source, name)
    for name, data in replaced.items():
        partial.write_file(name, data)


def adapted_config(plan: Plan) -> bytes | None:
    """config.json with the element type that was written, or None when the original is already right."""
    config = plan.template.config
    written = {job.output.dtype.name for job in plan.merged}
    stored = {info.dtype.name for info in plan.template.tensors.values() if info.dtype in MERGEABLE}
    if config is None or len(written) != 1 or written == stored:
        return None
    (name,) = written
    keys = [key for key in ("dtype", "torch_dtype") if key in config] or ["torch_dtype"]
    return (json.dumps({**config, **dict.fromkeys(keys, name)}, indent=2, ensure_ascii=False) + "\n").encode()


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
            {"model": model.reference, "revision": model.revision, "fingerprint": model.fingerprint()}
            for model in plan.models
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
