"""Outputs of any causal language model, in transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlmerge.errors import RequestError
from rlmerge.evaluate.causal import Causal, failures, load_causal, release_memory
from rlmerge.evaluate.generate import Sample, check_request, random_streams, refuse_undefined
from rlmerge.extras import require
from rlmerge.kernels.random import uniform
from rlmerge.sensitivity.model import find_device


class TransformersGenerator:
    """Batched generation on a GPU if there is one, keeping the last model loaded.

    What it draws depends on the batch by rounding of logits alone: the random numbers are the prompt's own.
    """

    def __init__(self, device: str = "auto", batch_size: int = 32) -> None:
        if batch_size < 1:
            raise RequestError(f"batch_size is {batch_size}", hint="It must be at least 1.")
        self._device = find_device(device)
        self._batch_size = batch_size
        self._held: tuple[object, Causal] | None = None

    def identity(self) -> Mapping[str, Any]:
        versions = {name: str(require(name).__version__) for name in ("torch", "transformers")}
        return {"backend": "transformers", "device": self._device.type, **versions}

    def generate(
        self,
        model: Path,
        prompts: Sequence[str],
        *,
        max_new_tokens: int,
        temperature: float,
        samples: int,
        seed: int,
        chat: bool,
    ) -> list[list[Sample]]:
        check_request(prompts, max_new_tokens, temperature, samples)
        return write(
            self._load(model),
            prompts,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            samples=samples,
            seed=seed,
            chat=chat,
            batch_size=self._batch_size,
        )

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


def write(
    causal: Causal,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    temperature: float,
    samples: int,
    seed: int,
    chat: bool,
    batch_size: int,
) -> list[list[Sample]]:
    """What ``Generator.generate`` promises, of a model that is loaded."""
    starts = [causal.encode(prompt, chat=chat) for prompt in prompts]
    keys = random_streams(prompts, samples, seed)
    places = [(prompt, index) for prompt in range(len(prompts)) for index in range(samples)]
    # The longest first: neighbours need little padding, and what does not fit into memory fails at once.
    places.sort(key=lambda place: (-len(starts[place[0]]), place))
    found: dict[tuple[int, int], Sample] = {}
    for first in range(0, len(places), batch_size):
        batch = places[first : first + batch_size]
        draws = np.stack([uniform(keys[p][k], 0, max_new_tokens, np.float64) for p, k in batch])
        with failures(causal.path):
            rows = _write(causal, [starts[prompt] for prompt, _ in batch], draws, temperature)
        for (prompt, index), row in zip(batch, rows, strict=True):
            found[prompt, index] = _sample(causal, prompts[prompt], row)
    return [[found[prompt, index] for index in range(samples)] for prompt in range(len(prompts))]


class _Draw:
    """A logits processor that leaves one token of each row: where the cumulative probability first exceeds the draw.

    So generation needs no random state, and finds out about logits that are NaN.
    """

    def __init__(self, causal: Causal, draws: np.ndarray, temperature: float, width: int) -> None:
        self._torch = require("torch")
        self._path, self._temperature, self._width = causal.path, temperature, width
        # float64 on a device that has it: a float32 sum over 150,000 tokens is off by more than the rarest are likely.
        self._dtype = self._torch.float32 if causal.device.type == "mps" else self._torch.float64
        self._draws = self._torch.as_tensor(draws, dtype=self._dtype, device=causal.device)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        refuse_undefined(bool(self._torch.isnan(scores).any()), self._path)
        if self._temperature == 0:
            return scores
        weights = self._torch.softmax(scores.to(self._dtype) / self._temperature, dim=-1).cumsum(dim=-1)
        draw = self._draws[:, input_ids.shape[1] - self._width, None]
        chosen = (weights <= draw * weights[:, -1:]).sum(dim=-1, keepdim=True)
        return self._torch.full_like(scores, -float("inf")).scatter_(1, chosen, 0.0)


def _write(causal: Causal, starts: Sequence[Sequence[int]], draws: np.ndarray, temperature: float) -> list[list[int]]:
    """The ids that follow each prompt, up to and with the first end, or as many as ``draws`` [B, n]."""
    torch, transformers = require("torch"), require("transformers")
    width = max(map(len, starts))
    tokens = torch.tensor([[0] * (width - len(ids)) + list(ids) for ids in starts], device=causal.device)
    present = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in starts], device=causal.device)
    # The model's own settings are replaced, not only overridden: generate() fills what is left open from them, and many
    # models ship a temperature, top-p or repetition penalty that would be applied on top.
    config = transformers.GenerationConfig(
        do_sample=False,
        max_new_tokens=draws.shape[1],
        eos_token_id=list(causal.ends) or None,
        pad_token_id=causal.ends[0] if causal.ends else 0,
    )
    draw = _Draw(causal, draws, temperature, width)
    own, causal.model.generation_config = causal.model.generation_config, config
    try:
        with torch.no_grad():
            output = causal.model.generate(tokens, attention_mask=present, logits_processor=[draw])
    finally:
        causal.model.generation_config = own
    return [_until_end(row, causal.ends) for row in output[:, width:].tolist()]


def _until_end(row: list[int], ends: Sequence[int]) -> list[int]:
    end = next((place for place, token in enumerate(row) if token in ends), len(row))
    return row[: end + 1]


def _sample(causal: Causal, prompt: str, row: Sequence[int]) -> Sample:
    stopped = row[-1] in causal.ends
    text = causal.tokenizer.decode(list(row[:-1] if stopped else row), skip_special_tokens=True)
    return Sample(prompt, text, tuple(row), stopped)
