"""Outputs of character-level Llamas in NumPy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlmerge.errors import RequestError
from rlmerge.evaluate.generate import Sample, Sampling, check_prompts
from rlmerge.kernels.random import uniform
from rlmerge.language.characters import END, decode, encode, read_vocabulary
from rlmerge.language.generation import refuse_nan
from rlmerge.language.tiny import TinyLlama, load

_BATCH = 256


class TinyGenerator:
    """Samples from a model of some million weights; what it draws depends on the batch by rounding of logits alone."""

    def identity(self) -> Mapping[str, Any]:
        return {"backend": "tiny"}

    def generate(self, model: Path, prompts: Sequence[str], sampling: Sampling) -> list[list[Sample]]:
        check_prompts(prompts)
        if sampling.chat:
            hint = "Leave --chat out, or use --backend transformers."
            raise RequestError("character-level models have no chat template", where=str(model), hint=hint)
        network = load(model)
        vocabulary = read_vocabulary(model, network.config.vocabulary)
        ends = [vocabulary[END]] if END in vocabulary else []
        starts = [encode(prompt, vocabulary) for prompt in prompts]
        keys = sampling.streams(prompts)
        found: list[list[Sample]] = [[] for _ in prompts]
        count = sampling.samples
        for members in same_length([len(starts[index // count]) for index in range(len(prompts) * count)]):
            places = [divmod(member, count) for member in members]
            draws = np.stack([uniform(keys[p][k], 0, sampling.max_new_tokens, np.float64) for p, k in places])
            tokens = np.array([starts[prompt] for prompt, _ in places])
            outputs = _write(network, tokens, draws, sampling.temperature, ends, model)
            for (prompt, _), output in zip(places, outputs, strict=True):
                stopped = output[-1] in ends
                text = decode(output[:-1] if stopped else output, vocabulary)
                found[prompt].append(Sample(prompts[prompt], text, tuple(output), stopped))
        return found

    def close(self) -> None: ...


def same_length(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Places of equal length in batches, in rising order: they fill a rectangle, so nothing is padded or masked."""
    groups: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        groups.setdefault(length, []).append(index)
    for members in groups.values():
        for first in range(0, len(members), _BATCH):
            yield members[first : first + _BATCH]


def choose(logits: np.ndarray, temperature: float, draws: np.ndarray) -> np.ndarray:
    """Token [B] at which the cumulative probability first exceeds ``draws`` [B] in [0, 1); the likeliest at 0.

    ``logits`` [B, vocabulary] are float64. A token of probability 0 is never chosen.
    """
    if temperature == 0:
        return logits.argmax(axis=-1)
    weights = np.exp((logits - logits.max(axis=-1, keepdims=True)) / temperature).cumsum(axis=-1)
    return (weights <= (draws * weights[:, -1])[:, None]).sum(axis=-1)


def _write(
    network: TinyLlama, tokens: np.ndarray, draws: np.ndarray, temperature: float, ends: Sequence[int], model: Path
) -> list[list[int]]:
    """The ids after each row of ``tokens`` [B, T], up to and with the first end, or as many as ``draws`` [B, n]."""
    outputs: list[list[int]] = [[] for _ in tokens]
    live = np.arange(len(tokens))
    for step in range(draws.shape[1]):
        logits = network.logits(tokens, tokens.shape[1] - 1)[:, -1].astype(np.float64)
        refuse_nan(bool(np.isnan(logits).any()), model)
        chosen = choose(logits, temperature, draws[live, step])
        for row, token in zip(live, chosen, strict=True):
            outputs[row].append(int(token))
        going = ~np.isin(chosen, ends)
        live, tokens = live[going], np.concatenate([tokens, chosen[:, None]], axis=1)[going]
        if not live.size:
            break
    return outputs
