"""Quantised model directories on disk, written by torch, and what they mean in float64."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


def write(folder: Path, tensors: Mapping[str, torch.Tensor], quantisation: object = None, **config: object) -> Path:
    """A model directory of one file whose config.json has ``quantisation`` as its quantization_config, unless None."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: x.contiguous() for name, x in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    entry = {} if quantisation is None else {"quantization_config": quantisation}
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config, **entry}))
    return folder


def weights(seed: int, *shape: int) -> torch.Tensor:
    """Normal float32 weights of a few sizes, some of them large."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=rng) * torch.exp(torch.randn(*shape, generator=rng))


def spread(grid: np.ndarray, block: tuple[int, int], shape: tuple[int, ...]) -> np.ndarray:
    """A grid's numbers at the elements of their blocks, float64 [*shape]."""
    wide = np.repeat(np.repeat(grid.astype(np.float64), block[0], axis=-2), block[1], axis=-1)
    return wide[..., : shape[-2], : shape[-1]]


def fp8(seed: int, shape: tuple[int, int], block: tuple[int, int] = (128, 128)) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes E4M3 and float32 scales such that the largest magnitude of every block is 448."""
    values = weights(seed, *shape).numpy()
    rows, columns = -(-shape[0] // block[0]), -(-shape[1] // block[1])
    scales = np.zeros((rows, columns), np.float32)
    for i in range(rows):
        for j in range(columns):
            part = values[i * block[0] : (i + 1) * block[0], j * block[1] : (j + 1) * block[1]]
            scales[i, j] = np.abs(part).max() / 448
    codes = torch.from_numpy((values / spread(scales, block, shape)).astype(np.float32)).to(torch.float8_e4m3fn)
    return codes, torch.from_numpy(scales)


def mxfp4(seed: int, *shape: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Blocks [*shape / 32, 16], scales [*shape / 32] and what they mean, float64 [*shape]."""
    rng = np.random.default_rng(seed)
    *front, last = shape
    codes = rng.integers(0, 16, (*front, last // 32, 32), dtype=np.uint8)
    exponents = rng.integers(110, 130, (*front, last // 32), dtype=np.uint8)
    meant = (FP4[codes] * 2.0 ** (exponents[..., None].astype(int) - 127)).reshape(shape)
    return torch.from_numpy(codes[..., ::2] | codes[..., 1::2] << 4), torch.from_numpy(exponents), meant


def int4(seed: int, rows: int, columns: int, group: int) -> tuple[dict[str, torch.Tensor], np.ndarray]:
    """The tensors of a packed int4 weight by the ends of their names, and what they mean, float64."""
    rng = np.random.default_rng(seed)
    numbers = rng.integers(-8, 8, (rows, columns))
    scales = torch.from_numpy(rng.random((rows, columns // group)) + 0.5).bfloat16()
    padded = np.zeros((rows, -(-columns // 8) * 8), np.int64)
    padded[:, :columns] = numbers + 8
    words = sum(padded[:, i::8] << (4 * i) for i in range(8))
    tensors = {
        "packed": torch.from_numpy(np.asarray(words).astype(np.uint32).view(np.int32)),
        "scale": scales,
        "shape": torch.tensor([rows, columns]),
    }
    return tensors, numbers * spread(scales.double().numpy(), (1, group), (rows, columns))
