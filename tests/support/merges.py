"""Small models written and merged in one line, for tests that spell out every number."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import rlmerge
from support.models import CONFIG, read_model, write_model

Tensors = Mapping[str, Any]


def write(folder: Path, dtype: str = "float32", config: Mapping[str, object] | None = None, **models: Tensors) -> None:
    """A model directory in ``folder`` for each keyword; ``config`` is added to a plain Llama configuration."""
    for name, tensors in models.items():
        arrays = {key: np.asarray(values) for key, values in tensors.items()}
        floats = {key: a if a.dtype == np.int64 and key.endswith("ids") else a * 1.0 for key, a in arrays.items()}
        write_model(folder / name, floats, dtype, {**CONFIG, **(config or {})})


def merge(folder: Path, recipe: str, out: str = "out", **options: Any) -> tuple[dict[str, Any], rlmerge.MergeResult]:
    """What ``recipe``, whose models are in ``folder``, makes: nested lists of numbers by name, and the result."""
    result = rlmerge.merge(localised(folder, recipe), folder / out, **{"cache": False, **options})
    return numbers(folder / out), result


def plan(folder: Path, recipe: str, **options: Any) -> rlmerge.Plan:
    """The plan of ``recipe``, whose models are in ``folder``."""
    return rlmerge.plan(localised(folder, recipe), **{"cache": False, **options})


def localised(folder: Path, recipe: str) -> str:
    """``recipe`` with ``$/`` replaced by the folder."""
    return recipe.replace("$/", f"{folder}/")


def numbers(folder: Path) -> dict[str, Any]:
    """Every tensor of a model directory as nested lists of floats."""
    return {name: tensor.astype(np.float64).tolist() for name, tensor in read_model(folder).items()}


def config_of(folder: Path) -> dict[str, Any]:
    """The configuration of a model directory."""
    return json.loads((folder / "config.json").read_text())
