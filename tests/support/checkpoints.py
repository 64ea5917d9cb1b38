"""The trained checkpoints of the examples, small enough for NumPy, and what tests ask them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from .models import read_model, write_model

EXAMPLES = Path(__file__).parents[2] / "examples" / "checkpoints"
BASE = EXAMPLES / "base"
PROMPTS = ["______A63+8=", "_Sdbca=", "______Rabc="]


def broken(folder: Path) -> Path:
    """The base with one weight that is NaN."""
    weights = read_model(BASE)
    weights["model.norm.weight"] = np.where(np.arange(128) == 5, np.nan, weights["model.norm.weight"])
    write_model(folder, weights, "bfloat16", json.loads((BASE / "config.json").read_text()))
    (folder / "tokenizer.json").write_text((BASE / "tokenizer.json").read_text())
    return folder
