"""Drawing outputs from a causal language model with random numbers that are given, whatever else is in the batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlmerge.errors import RunError
from rlmerge.extras import require
from rlmerge.language.model import Causal, failures


def draw_outputs(
    causal: Causal, prompts: Sequence[Sequence[int]], draws: np.ndarray, temperature: float = 1.0
) -> list[list[int]]:
    """The ids that follow each of ``prompts``, up to and with the first end, or as many as ``draws`` [B, n].

    Token t of row b is the first at which the cumulative probability of softmax(logits / ``temperature``) exceeds
    ``draws[b, t]`` in [0, 1), with no filter on top; temperature 0 takes the most likely one. The batch matters by
    rounding of logits alone. RunError when generation fails or logits are NaN.
    """
    torch, transformers = require("torch"), require("transformers")
    width = max(map(len, prompts))
    tokens = torch.tensor([[0] * (width - len(ids)) + list(ids) for ids in prompts], device=causal.device)
    present = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts], device=causal.device)
    # The model's own settings are replaced, not only overridden: generate() fills what is left open from them, and many
    # models ship a temperature, top-p or repetition penalty that would be applied on top.
    config = transformers.GenerationConfig(
        do_sample=False,
        max_new_tokens=draws.shape[1],
        eos_token_id=list(causal.ends) or None,
        pad_token_id=causal.ends[0] if causal.ends else 0,
    )
    choose = _Choose(causal, draws, temperature, width)
    own, causal.model.generation_config = causal.model.generation_config, config
    try:
        with failures(causal.path), torch.no_grad():
            output = causal.model.generate(tokens, attention_mask=present, logits_processor=[choose])
    finally:
        causal.model.generation_config = own
    return [_until_end(row, causal.ends) for row in output[:, width:].tolist()]


def refuse_nan(is_nan: bool, model: Path) -> None:
    """RunError when logits are NaN: such a model has no next-token distribution."""
    if is_nan:
        hint = "Its weights are broken or overflow; `rlmerge verify` and the merge's warnings say where."
        raise RunError("the model's logits are NaN", where=str(model), hint=hint)


class _Choose:
    """A logits processor that leaves one token of each row, so that generation needs no random state."""

    def __init__(self, causal: Causal, draws: np.ndarray, temperature: float, width: int) -> None:
        self._torch = require("torch")
        self._path, self._temperature, self._width = causal.path, temperature, width
        # float64 on a device that has it: a float32 sum over 150,000 tokens is off by more than the rarest are likely.
        self._dtype = self._torch.float32 if causal.device.type == "mps" else self._torch.float64
        self._draws = self._torch.as_tensor(draws, dtype=self._dtype, device=causal.device)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        refuse_nan(bool(self._torch.isnan(scores).any()), self._path)
        if self._temperature == 0:
            return scores
        weights = self._torch.softmax(scores.to(self._dtype) / self._temperature, dim=-1).cumsum(dim=-1)
        draw = self._draws[:, input_ids.shape[1] - self._width, None]
        chosen = (weights <= draw * weights[:, -1:]).sum(dim=-1, keepdim=True)
        return self._torch.full_like(scores, -float("inf")).scatter_(1, chosen, 0.0)


def _until_end(row: list[int], ends: Sequence[int]) -> list[int]:
    end = next((place for place, token in enumerate(row) if token in ends), len(row))
    return row[: end + 1]
