"""Adapter directories written by hand, tensors of opened checkpoints, and logits by transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from rlmerge.checkpoint import Checkpoint
from rlmerge.kernels.dtypes import decode

MADE = Path(__file__).parents[1] / "checkpoint" / "formats" / "adapters"
"""Adapters that PEFT wrote; see ``make.py`` there."""

PREFIX = "base_model.model."


def write_adapter(folder: Path, tensors: Mapping[str, np.ndarray], **config: object) -> Path:
    """A PEFT adapter directory of ``tensors``, named without PEFT's prefix."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {PREFIX + name: np.ascontiguousarray(value) for name, value in tensors.items()}
    save_file(arrays, folder / "adapter_model.safetensors", {"format": "pt"})
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4} | config
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def factors(module: str, out: int, inner: int, rank: int = 2, seed: int = 0) -> dict[str, np.ndarray]:
    """Random float32 factors of one layer."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((rank, inner)).astype(np.float32)
    b = rng.standard_normal((out, rank)).astype(np.float32)
    return {f"{module}.lora_A.weight": a, f"{module}.lora_B.weight": b}


def values(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """All tensors as floats, in their shapes."""
    return {
        name: decode(source.read(), source.dtype).reshape(source.shape) for name, source in checkpoint.tensors.items()
    }


def expected_logits(name: str) -> np.ndarray:
    """What the live adapter ``base/adapter`` gave when it was made."""
    return load_file(MADE / "logits.safetensors")[name]


def logits(checkpoint: Checkpoint, folder: Path) -> np.ndarray:
    """Logits [2, 6, 20] of a checkpoint as transformers loads it in float32, from a copy in ``folder``."""
    import torch
    from transformers import AutoModelForCausalLM

    folder.mkdir(parents=True)
    arrays = {name: value.astype(np.float32) for name, value in values(checkpoint).items()}
    save_file(arrays, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps({**(checkpoint.config or {}), "dtype": "float32"}))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(input_ids=torch.arange(12).reshape(2, 6)).logits.numpy()
