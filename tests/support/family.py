"""A base and experts large enough that their tensors are cut into many tiles, and ways to merge directories."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import rlmerge

SHAPES = {
    "model.embed_tokens.weight": (2500, 600),
    "model.layers.0.mlp.up_proj.weight": (301, 1023),
    "model.layers.0.input_layernorm.weight": (600,),
    "model.layers.1.mlp.up_proj.weight": (1023, 301),
    "model.layers.1.empty": (0, 4),
    "model.layers.1.scale": (),
    "lm_head.weight": (700, 600),
}
"""2.5 million entries: 23, 5, 1, 5 and 7 blocks of 65536, and tensors of none and of one."""

MATRICES = {
    "model.embed_tokens.weight": (520, 150),
    "model.layers.0.mlp.up_proj.weight": (75, 255),
    "model.layers.0.input_layernorm.weight": (150,),
    "model.layers.1.mlp.up_proj.weight": (255, 75),
    "model.layers.1.empty": (0, 4),
    "model.layers.1.scale": (),
    "lm_head.weight": (175, 150),
}
"""The same a quarter as high and wide, for methods that decompose matrices: the largest has two blocks."""

COMMAND = [sys.executable, "-c", "from rlmerge.cli import main; main()"]
"""The `rlmerge` command of this environment."""


def draw(seed: int, count: int = 3, shapes: dict[str, tuple[int, ...]] = SHAPES) -> tuple[dict, list[dict]]:
    """float32 values of a base and of experts that changed a fifth of its entries by a few per cent."""
    rng = np.random.default_rng(seed)
    base = {name: np.asarray(0.05 * rng.standard_normal(shape, np.float32)) for name, shape in shapes.items()}
    experts = [
        {
            name: np.asarray(w * (1 + 0.03 * rng.standard_normal(w.shape, np.float32) * (rng.random(w.shape) < 0.2)))
            for name, w in base.items()
        }
        for _ in range(count)
    ]
    return base, experts


def recipe(family: Path, method: str, count: int = 3, base: bool = True, **parameters: Any) -> dict[str, Any]:
    """A recipe over ``base`` and ``e0`` … of a folder; a list gives one value per expert."""
    each = {name: value for name, value in parameters.items() if isinstance(value, list)}
    models = [
        {"model": str(family / f"e{k}"), "parameters": {name: value[k] for name, value in each.items()}}
        for k in range(count)
    ]
    shared = {name: value for name, value in parameters.items() if name not in each}
    donor = {"base_model": str(family / "base")} if base else {}
    return {"merge_method": method, **donor, "models": models, "parameters": shared}


def merge(recipe: Any, out: Path, **options: Any) -> rlmerge.MergeResult:
    """``rlmerge.merge`` into shards of 2 MB."""
    return rlmerge.merge(recipe, out, **({"shard_size": 2_000_000} | options))


def tree(folder: Path) -> dict[str, bytes]:
    """{relative name: content} of a directory."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def cli(folder: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `rlmerge ARGUMENTS` in ``folder``; the finished process with its stdout and stderr."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"COLUMNS": "200", "OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
