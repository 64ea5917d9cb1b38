"""Stream Hugging Face model directories to disk, by a writer that shares no code with the program under test."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

Shapes = Mapping[str, tuple[int, ...]]

STORAGE = {"bfloat16": np.uint16, "float16": np.float16, "float32": np.float32}
"""How NumPy holds each type that is written; bfloat16 as its bits."""

_CODES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}


class ModelWriter:
    """Streams one model directory; ``append`` takes tensors in the order of ``shapes``, each in one or more pieces."""

    def __init__(
        self, directory: Path, shapes: Shapes, config: Mapping[str, object], dtype: str, shard: int = 5 * 10**9
    ) -> None:
        directory.mkdir(parents=True)
        text = json.dumps({**config, "torch_dtype": dtype}, indent=2)
        (directory / "config.json").write_text(text + "\n")
        self._code, self._size = _CODES[dtype], np.dtype(STORAGE[dtype]).itemsize
        self._shapes = shapes
        sizes = {name: prod(shape) * self._size for name, shape in shapes.items()}
        shards = split(sizes, shard)
        total = len(shards)
        files = [f"model-{number:05}-of-{total:05}.safetensors" for number in range(1, total + 1)]
        files = files if total > 1 else ["model.safetensors"]
        self._files = [self._open(directory / file, names) for file, names in zip(files, shards, strict=True)]
        self._place = {name: index for index, names in enumerate(shards) for name in names}
        if total > 1:
            places = {name: files[place] for name, place in self._place.items()}
            index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": places}
            (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")

    def append(self, name: str, values: np.ndarray) -> None:
        """Write the next entries of tensor ``name``, in its storage type."""
        self._files[self._place[name]].write(values.data)

    def close(self) -> None:
        """Finish the files."""
        for file in self._files:
            file.close()

    def _open(self, path: Path, names: Sequence[str]) -> BinaryIO:
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name in names:
            start, end = end, end + prod(self._shapes[name]) * self._size
            header[name] = {"dtype": self._code, "shape": list(self._shapes[name]), "data_offsets": [start, end]}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        file = path.open("wb")
        file.write(len(text).to_bytes(8, "little") + text)
        return file


def split(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Names in runs of at most ``limit`` bytes, in their order; a tensor larger than that stands alone."""
    shards: list[list[str]] = [[]]
    used = 0
    for name, size in sizes.items():
        if shards[-1] and used + size > limit:
            shards.append([])
            used = 0
        shards[-1].append(name)
        used += size
    return shards
