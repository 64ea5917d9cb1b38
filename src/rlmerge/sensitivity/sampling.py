"""A model's own responses at temperature 1, and which of them earn a verifiable reward."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from rlmerge.errors import RequestError, did_you_mean
from rlmerge.kernels.random import stream_key, uniform
from rlmerge.language.data import Dataset, Example
from rlmerge.language.generation import draw_outputs
from rlmerge.language.gym import FULL_SCORE, answer_in, grade
from rlmerge.language.model import Causal
from rlmerge.language.tokens import Encoded, TokenSequence, encode_prompt
from rlmerge.sensitivity.options import SensitivityOptions

Reward = Callable[[Example, str], bool]
"""Whether a response to an example earns the reward."""


def sample_responses(
    causal: Causal,
    examples: Sequence[Example],
    options: SensitivityOptions,
    reward: Reward | None = None,
    advance: Callable[[int], None] = lambda done: None,
) -> Encoded:
    """``options.samples`` responses to each prompt, drawn from the model itself; only rewarded ones with a ``reward``.

    Prompts that leave no room for a response within ``max_length`` are dropped; responses that reach a limit before
    they end count as truncated. What is drawn follows from the seed and the places of prompt and sample, whatever the
    batch. RequestError when no prompt fits or no response earns the reward.
    """
    prompts = [(number, example, encode_prompt(causal.tokenizer, example)) for number, example in enumerate(examples)]
    fitting = [(number, example, ids) for number, example, ids in prompts if 0 < len(ids) < options.max_length]
    if not fitting:
        hint = "Raise --max-length, or check that the prompts are not empty."
        raise RequestError(f"none of the {len(prompts)} prompts fits {options.max_length} tokens", hint=hint)
    asked = [
        (stream_key("response", options.seed, number, sample), example, ids)
        for number, example, ids in fitting
        for sample in range(options.samples)
    ]
    sequences: list[TokenSequence] = []
    truncated = 0
    shown = ""
    for first in range(0, len(asked), options.batch_size):
        batch = asked[first : first + options.batch_size]
        room = min(options.max_new_tokens, options.max_length - min(len(ids) for _, _, ids in batch))
        draws = np.stack([uniform(key, 0, room, np.float64) for key, _, _ in batch])
        outputs = draw_outputs(causal, [ids for _, _, ids in batch], draws)
        for (_, example, prompt), output in zip(batch, outputs, strict=True):
            response = output[: options.max_length - len(prompt)]
            text = causal.tokenizer.decode(response, skip_special_tokens=True) if reward else ""
            if reward is None or reward(example, text):
                sequences.append(TokenSequence((*prompt, *response), len(prompt), example.where))
                truncated += response[-1] not in causal.ends
            shown = shown or f"{example.where}: wanted {example.answer!r}, the model wrote {text[:80]!r}."
        advance(len(batch))
    if not sequences:
        hint = f"Check the reward's form, raise --samples, or use easier prompts. {shown}"
        raise RequestError(f"none of the {len(asked)} samples earned the reward '{options.reward}'", hint=hint)
    return Encoded(tuple(sequences), truncated, len(prompts) - len(fitting), sampled=len(asked))


def make_reward(spec: str, data: Dataset) -> Reward:
    """The reward ``spec`` names: ``exact``, ``regex:PATTERN`` or ``reasoning-gym``.

    ``exact``: the response equals the reference answer, blanks around either aside. ``regex``: the pattern occurs in
    the response and, if it has a group, the last occurrence's first group equals the reference answer.
    ``reasoning-gym``: the task's own verifier gives the full score to the text inside the last ``<answer>`` tag, or to
    the whole response. RequestError when ``spec`` is none of these or the data lacks what it needs.
    """
    kind, _, pattern = spec.partition(":")
    if kind == "exact" and not pattern:
        _need_answers(data, spec)
        return lambda example, response: response.strip() == _answer(example)
    if kind == "regex" and pattern:
        return _regex(pattern, data)
    if kind == "reasoning-gym" and not pattern:
        return _verifier(data)
    known = ("exact", "regex:PATTERN", "reasoning-gym")
    raise RequestError(f"unknown reward '{spec}'", hint=did_you_mean(spec, known))


def _answer(example: Example) -> str:
    return (example.answer or "").strip()


def _need_answers(data: Dataset, spec: str) -> None:
    without = next((example for example in data.examples if not _answer(example)), None)
    if without:
        hint = 'Give each line an "answer" or a "response", or use regex:PATTERN without a group.'
        raise RequestError(f"reward '{spec}' needs reference answers", where=without.where, hint=hint)


def _regex(pattern: str, data: Dataset) -> Reward:
    try:
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise RequestError(f"bad pattern of the reward: {error}", where=pattern) from None
    if compiled.groups == 0:
        return lambda example, response: compiled.search(response) is not None
    _need_answers(data, f"regex:{pattern}")

    def matches(example: Example, response: str) -> bool:
        found = [match.group(1) for match in compiled.finditer(response)]
        return bool(found) and (found[-1] or "").strip() == _answer(example)

    return matches


def _verifier(data: Dataset) -> Reward:
    if data.task is None:
        hint = "Use --data reasoning-gym:TASK, or the reward exact or regex:PATTERN."
        raise RequestError("the reward 'reasoning-gym' needs data of a reasoning-gym task", hint=hint)

    def verified(example: Example, response: str) -> bool:
        tagged = answer_in(response)
        return grade(data.task, response.strip() if tagged is None else tagged, example.entry or {}, []) >= FULL_SCORE

    return verified
