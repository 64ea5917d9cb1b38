"""Outputs of any causal language model, in transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlmerge.errors import RequestError
from rlmerge.evaluate.generate import Sample, Sampling, check_prompts
from rlmerge.extras import require
from rlmerge.kernels.random import uniform
from rlmerge.language.generation import draw_outputs
from rlmerge.language.model import Causal, find_device, load_causal, release_memory
from rlmerge.language.tokens import encode_text


class TransformersGenerator:
    """Batched generation on a GPU if there is one, keeping the last model loaded."""

    def __init__(self, device: str = "auto", batch_size: int = 32) -> None:
        if batch_size < 1:
            raise RequestError(f"batch_size must be at least 1, not {batch_size}")
        self._device = find_device(device)
        self._batch_size = batch_size
        self._held: tuple[object, Causal] | None = None

    def identity(self) -> Mapping[str, Any]:
        versions = {name: str(require(name).__version__) for name in ("torch", "transformers")}
        return {"backend": "transformers", "device": self._device.type, **versions}

    def generate(self, model: Path, prompts: Sequence[str], sampling: Sampling) -> list[list[Sample]]:
        check_prompts(prompts)
        return write(self._load(model), prompts, sampling, self._batch_size)

    def close(self) -> None:
        self._held = None
        release_memory()

    def _load(self, model: Path) -> Causal:
        files = sorted(model.glob("*.safetensors"))
        key = (model.resolve(), [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files])
        if self._held is None or self._held[0] != key:
            self.close()
            self._held = (key, load_causal(model, self._device))
        return self._held[1]


def write(causal: Causal, prompts: Sequence[str], sampling: Sampling, batch_size: int) -> list[list[Sample]]:
    """What ``Generator.generate`` promises, of a model that is loaded, ``batch_size`` outputs at a time."""
    starts = [encode_text(causal.tokenizer, prompt, str(causal.path), chat=sampling.chat) for prompt in prompts]
    keys = sampling.streams(prompts)
    places = [(prompt, index) for prompt in range(len(prompts)) for index in range(sampling.samples)]
    # The longest first: neighbours need little padding, and what does not fit into memory fails at once.
    places.sort(key=lambda place: (-len(starts[place[0]]), place))
    found: dict[tuple[int, int], Sample] = {}
    for first in range(0, len(places), batch_size):
        batch = places[first : first + batch_size]
        draws = np.stack([uniform(keys[p][k], 0, sampling.max_new_tokens, np.float64) for p, k in batch])
        rows = draw_outputs(causal, [starts[prompt] for prompt, _ in batch], draws, sampling.temperature)
        for (prompt, index), row in zip(batch, rows, strict=True):
            stopped = row[-1] in causal.ends
            text = causal.tokenizer.decode(row[:-1] if stopped else row, skip_special_tokens=True)
            found[prompt, index] = Sample(prompts[prompt], text, tuple(row), stopped)
    return [[found[prompt, index] for index in range(sampling.samples)] for prompt in range(len(prompts))]
