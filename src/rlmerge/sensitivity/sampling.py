"""A model's own responses at temperature 1, and the ones among them that earn a reward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from rlmerge.errors import RequestError
from rlmerge.sensitivity.data import Example
from rlmerge.sensitivity.model import CausalModel
from rlmerge.sensitivity.options import SensitivityOptions
from rlmerge.sensitivity.reward import Reward
from rlmerge.sensitivity.tokens import Encoded, TokenSequence, encode_prompt


def sample_responses(
    causal: CausalModel,
    examples: Sequence[Example],
    options: SensitivityOptions,
    reward: Reward | None = None,
    advance: Callable[[int], None] = lambda done: None,
) -> Encoded:
    """``options.samples`` responses to each prompt, drawn from the model itself; only rewarded ones with a ``reward``.

    Prompts that leave no room for a response within ``max_length`` are dropped; responses that reach a limit before
    they end count as truncated. The caller's random state is untouched. Raises RequestError when no prompt fits or no
    response earns the reward.
    """
    prompts = [(example, encode_prompt(causal.tokenizer, example)) for example in examples]
    fitting = [(example, ids) for example, ids in prompts if 0 < len(ids) < options.max_length]
    if not fitting:
        hint = "Raise --max-length, or check that the prompts are not empty."
        raise RequestError(f"none of the {len(prompts)} prompts fits {options.max_length} tokens", hint=hint)
    asked = [pair for pair in fitting for _ in range(options.samples)]
    sequences: list[TokenSequence] = []
    truncated = 0
    shown = ""
    with torch.random.fork_rng(_cuda_devices(causal.device)):
        torch.manual_seed(options.seed)
        for index in range(0, len(asked), options.batch_size):
            batch = asked[index : index + options.batch_size]
            for (example, prompt), (response, ended) in zip(batch, _generate(causal, batch, options), strict=True):
                text = causal.tokenizer.decode(response, skip_special_tokens=True) if reward else ""
                if reward is None or reward(example, text):
                    sequences.append(TokenSequence(prompt + response, len(prompt), example.where))
                    truncated += not ended
                shown = shown or f"{example.where}: wanted {example.answer!r}, the model wrote {text[:80]!r}."
            advance(len(batch))
    if not sequences:
        hint = f"Check the reward's form, raise --samples, or use easier prompts. {shown}"
        raise RequestError(f"none of the {len(asked)} samples earned the reward '{options.reward}'", hint=hint)
    return Encoded(tuple(sequences), truncated, len(prompts) - len(fitting), len(asked))


def _generate(
    causal: CausalModel, batch: Sequence[tuple[Example, tuple[int, ...]]], options: SensitivityOptions
) -> list[tuple[tuple[int, ...], bool]]:
    """For each prompt the sampled ids, up to and with the end of sequence, and whether it ended by itself."""
    from transformers import GenerationConfig

    width = max(len(ids) for _, ids in batch)
    padded = torch.tensor([[0] * (width - len(ids)) + list(ids) for _, ids in batch])
    present = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for _, ids in batch])
    ends = _end_ids(causal)
    # Every filter off: the true Fisher is an expectation under the model, not under its sampling defaults. The model's
    # own config is replaced, not only overridden, because generate() fills what a given config leaves open from it.
    config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=min(options.max_new_tokens, options.max_length - min(len(ids) for _, ids in batch)),
        eos_token_id=ends or None,
        pad_token_id=ends[0] if ends else 0,
    )
    own, causal.model.generation_config = causal.model.generation_config, config
    try:
        with torch.no_grad():
            output = causal.model.generate(padded.to(causal.device), attention_mask=present.to(causal.device))
    finally:
        causal.model.generation_config = own
    responses: list[tuple[tuple[int, ...], bool]] = []
    for (_, prompt), row in zip(batch, output[:, width:].tolist(), strict=True):
        room = row[: options.max_length - len(prompt)]
        end = next((position for position, token in enumerate(room) if token in ends), None)
        responses.append((tuple(room if end is None else room[: end + 1]), end is not None))
    return responses


def _end_ids(causal: CausalModel) -> list[int]:
    """All ids that end a response: chat models list several in their generation config."""
    configured = getattr(causal.model.generation_config, "eos_token_id", None)
    listed: list[Any] = configured if isinstance(configured, list) else [configured]
    own = causal.tokenizer.eos_token_id
    return list(dict.fromkeys(token for token in (*listed, own) if token is not None))


def _cuda_devices(device: Any) -> list[int]:
    return [device.index or 0] if device.type == "cuda" else []
