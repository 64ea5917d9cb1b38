"""Measured directories written by hand, in the format of `rlmerge sensitivity`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rlmerge.checkpoint import open_checkpoint
from rlmerge.checkpoint.sensitivity_record import SensitivityRecord

from .models import write_model


def write_measured(
    folder: Path,
    model: Path,
    fisher: Mapping[str, Any],
    grams: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """The directory of a measurement of ``model``: ``fisher`` by tensor name, and ``grams`` by the layer's name."""
    grams = grams or {}
    stored = {f"{name}.gram": matrix for name, matrix in grams.items()}
    write_model(folder, {**fisher, **stored}, "float32", {})
    record = SensitivityRecord(
        model=str(model),
        model_digest=open_checkpoint(model).fingerprint(),
        data="data.jsonl",
        data_digest="0",
        mode="empirical",
        reward=None,
        sequences=1,
        tokens=1,
        truncated=0,
        dropped=0,
        eos_appended=0,
        sampled=0,
        max_length=1,
        max_new_tokens=1,
        batch_size=1,
        seed=0,
        dtype="float32",
        device="cpu",
        versions={},
        uncovered=(),
        grams={name: f"{name}.gram" for name in grams},
        gram_tokens=1,
    )
    content = json.loads(record.to_json()) | changes
    (folder / "sensitivity.json").write_text(json.dumps(content))
    return folder


def fishers(seed: int, count: int, shapes: Mapping[str, tuple[int, ...]]) -> list[dict[str, np.ndarray]]:
    """Sensitivities of ``count`` experts: squares over many orders of magnitude, a tenth of them 0."""
    rng = np.random.default_rng(seed)
    return [
        {
            name: (np.exp(4 * rng.standard_normal(shape)) * 1e-9 * (rng.random(shape) > 0.1)).astype(np.float32)
            for name, shape in shapes.items()
        }
        for _ in range(count)
    ]
