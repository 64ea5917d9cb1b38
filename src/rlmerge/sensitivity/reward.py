"""Verifiable rewards: a sampled response either earns the reward or does not."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from rlmerge.errors import RequestError, did_you_mean
from rlmerge.extras import require
from rlmerge.sensitivity.data import Dataset, Example

Reward = Callable[[Example, str], bool]

_FULL_SCORE = 1.0 - 1e-9


def make_reward(spec: str, data: Dataset) -> Reward:
    """The reward ``spec`` names: ``exact``, ``regex:PATTERN`` or ``reasoning-gym``.

    ``exact``: the response equals the reference answer, blanks around either aside. ``regex``: the pattern occurs in
    the response and, if it has a group, the last occurrence's first group equals the reference answer.
    ``reasoning-gym``: the task's own verifier gives the full score to the text inside the last ``<answer>`` tag, or to
    the whole response. Raises RequestError when ``spec`` is none of these or the data lacks what it needs.
    """
    kind, _, pattern = spec.partition(":")
    if kind == "exact":
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
    except re.error as error:
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
    extract: Callable[[str], Any] = require("reasoning_gym.utils").extract_answer

    def verified(example: Example, response: str) -> bool:
        answer = extract(response)
        return data.task.score_answer(response.strip() if answer is None else answer, example.entry) >= _FULL_SCORE

    return verified
