"""Model directories on disk, from arrays and back, written and read by the safetensors library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors import TensorSpec, deserialize, serialize_file

STORED = {
    "bfloat16": ("BF16", np.dtype(ml_dtypes.bfloat16)),
    "float16": ("F16", np.dtype(np.float16)),
    "float32": ("F32", np.dtype(np.float32)),
    "float64": ("F64", np.dtype(np.float64)),
    "int64": ("I64", np.dtype(np.int64)),
}
"""Element types by name: how safetensors spells them, and NumPy's type."""

_BY_CODE = dict(STORED.values())
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "tie_word_embeddings": False}


def stored(values, dtype: str) -> np.ndarray:
    """``values`` rounded to nearest even in the element type called ``dtype``."""
    with np.errstate(over="ignore"):
        return np.asarray(values).astype(STORED[dtype][1])


def write_model(
    folder: Path, tensors: Mapping[str, object], dtype: str = "float32", config: Mapping[str, object] | None = None
) -> Path:
    """A model directory of one file; integer arrays stay int64, all others are stored as ``dtype``."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, np.ndarray] = {}
    specs: dict[str, TensorSpec] = {}
    for name, values in tensors.items():
        kind = "int64" if np.asarray(values).dtype.kind == "i" else dtype
        array = arrays[name] = np.ascontiguousarray(stored(values, kind)).reshape(np.shape(values))
        specs[name] = TensorSpec(dtype=kind, shape=list(array.shape), data_ptr=array.ctypes.data, data_len=array.nbytes)
    serialize_file(specs, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG if config is None else config))
    return folder


def read_model(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of a model directory, in the type it is stored in (bfloat16 by ml_dtypes)."""
    found: dict[str, np.ndarray] = {}
    for file in sorted(folder.glob("*.safetensors")):
        for name, tensor in deserialize(file.read_bytes()):
            found[name] = np.frombuffer(tensor["data"], _BY_CODE[tensor["dtype"]]).reshape(tensor["shape"])
    return found
