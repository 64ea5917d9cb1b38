"""Data sets of reasoning-gym, opened and judged by their own verifiers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlmerge.errors import RequestError, did_you_mean
from rlmerge.extras import require

FULL_SCORE = 1.0 - 1e-9
"""The score from which an answer is right; verifiers give part of it for answers that come close."""


def open_dataset(name: str, settings: Mapping[str, Any], where: str) -> Any:
    """reasoning-gym's data set ``name``; RequestError, which names ``where``, when there is none with ``settings``."""
    gym = require("reasoning_gym")
    known = gym.factory.DATASETS
    if name not in known:
        raise RequestError(f"unknown reasoning-gym data set '{name}'", where=where, hint=did_you_mean(name, known))
    try:
        return gym.create_dataset(name, **settings)
    except (ValueError, TypeError, AssertionError) as error:
        hint = "Its configuration class in reasoning_gym lists the settings and their ranges."
        raise RequestError(f"'{name}' does not take these settings: {error}", where=where, hint=hint) from None


def answer_in(text: str) -> str | None:
    """What stands between the last ``<answer>`` tags of an output; None without them."""
    return require("reasoning_gym").utils.extract_answer(text)


def grade(dataset: Any, answer: str | None, entry: Mapping[str, Any], failures: list[str]) -> float:
    """The verifier's score, mostly in [0, 1]; 0 and a note in ``failures`` where it cannot read the answer."""
    try:
        return float(dataset.score_answer(answer=answer, entry=entry))
    except Exception as error:  # verifiers parse what models write, and some let any error escape
        failures.append(f"{type(error).__name__}: {error}"[:200])
        return 0.0
