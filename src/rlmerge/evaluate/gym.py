"""Any data set of reasoning-gym, judged by its own verifier."""

from __future__ import annotations

import importlib.metadata
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from rlmerge.errors import RequestError, did_you_mean
from rlmerge.evaluate.generate import Generator, Sample
from rlmerge.evaluate.scores import Score
from rlmerge.extras import require

BARE = "none"
"""The prompt style that gives the question alone and takes the whole output as the answer."""


@dataclass(frozen=True, slots=True)
class Gym:
    """Scores models on reasoning-gym data sets with ``samples`` outputs for each question.

    A task is ``DATASET`` or ``DATASET?key=value&…``, the settings of the data set with ``size`` (100) and ``seed`` (0)
    among them. ``prompt`` is one of reasoning-gym's own instructions (``default``, ``simple``, ``direct``, …), put
    before the question; the answer then is what stands between the last ``<answer>`` tags. The score ``avg@k`` is the
    mean of the verifier's scores in [0, 1], ``pass@k`` the share of questions with a fully right output.
    """

    generator: Generator
    samples: int = 4
    temperature: float = 1.0
    max_new_tokens: int = 512
    seed: int = 0
    chat: bool = False
    prompt: str = "default"
    limit: int | None = None

    name = "gym"

    def __post_init__(self) -> None:
        styles = {BARE, *require("reasoning_gym").utils.SYSTEM_PROMPTS}
        if self.prompt not in styles:
            hint = did_you_mean(self.prompt, styles)
            raise RequestError(f"reasoning-gym has no prompt style {self.prompt!r}", hint=hint)

    def identity(self) -> dict[str, object]:
        """Versions, the generator's identity, and every option."""
        return {
            "reasoning-gym": importlib.metadata.version("reasoning-gym"),
            "generator": dict(self.generator.identity()),
            "samples": [self.samples, self.temperature, self.max_new_tokens, self.seed],
            "prompt": [self.prompt, self.chat],
            "limit": self.limit,
        }

    def check(self, tasks: Sequence[str]) -> None:
        """RequestError when one of ``tasks`` is no data set or has settings that it does not take."""
        for task in tasks:
            _open_task(task)

    def score(self, model: Path, tasks: Sequence[str]) -> list[Score]:
        """``avg@k`` of each task, followed by ``pass@k`` where k > 1."""
        return [score for task in tasks for score in self._score(model, task)]

    def close(self) -> None:
        """Give back the memory of the model that generates."""
        self.generator.close()

    def _score(self, model: Path, task: str) -> list[Score]:
        dataset = _open_task(task)
        count = len(dataset) if self.limit is None else min(self.limit, len(dataset))
        entries = [dataset[index] for index in range(count)]
        style = "" if self.prompt == BARE else require("reasoning_gym").utils.SYSTEM_PROMPTS[self.prompt].strip()
        outputs = self.generator.generate(
            model,
            [f"{style}\n\n{entry['question']}" if style else entry["question"] for entry in entries],
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            samples=self.samples,
            seed=self.seed,
            chat=self.chat,
        )
        failures: list[str] = []
        grades = [
            [grade(dataset.score_answer, self._answer(sample), entry, failures) for sample in samples]
            for samples, entry in zip(outputs, entries, strict=True)
        ]
        stopped = [sample.stopped for samples in outputs for sample in samples]
        details = {"stop_rate": sum(stopped) / len(stopped), "verifier_errors": failures}
        means = [math.fsum(found) / len(found) for found in grades]
        scores = [Score.of_items(task, f"avg@{self.samples}", means, k=self.samples, details=details)]
        if self.samples > 1:
            best = [float(max(found) >= 1) for found in grades]
            scores.append(Score.of_items(task, f"pass@{self.samples}", best, k=self.samples, details=details))
        return scores

    def _answer(self, sample: Sample) -> str | None:
        if self.prompt == BARE:
            return sample.text.strip()
        return require("reasoning_gym").utils.extract_answer(sample.text)


def _open_task(task: str) -> Any:
    """The data set of a task word."""
    name, _, text = task.partition("?")
    try:
        settings = {key: _value(value) for key, value in parse_qsl(text, strict_parsing=bool(text))}
    except ValueError as error:
        raise _unknown_settings(name, task, error) from None
    dataset = open_dataset(name, {"size": 100, "seed": 0, **settings}, task)
    if len(dataset) < 1:
        raise RequestError("holds no questions", where=f"gym:{task}", hint="Set size to at least 1.")
    return dataset


def open_dataset(name: str, settings: Mapping[str, Any], task: str) -> Any:
    """reasoning-gym's data set ``name``; RequestError, which names ``task``, when there is none with ``settings``."""
    gym = require("reasoning_gym")
    known = gym.factory.DATASETS
    if name not in known:
        raise RequestError(f"reasoning-gym has no data set {name!r}", hint=did_you_mean(name, known))
    try:
        return gym.create_dataset(name, **settings)
    except (ValueError, TypeError, AssertionError) as error:
        raise _unknown_settings(name, task, error) from None


def _unknown_settings(name: str, task: str, error: Exception) -> RequestError:
    hint = f"Write gym:{name}?key=value&key=value with the settings of that data set."
    return RequestError(f"has no such settings ({error})", where=f"gym:{task}", hint=hint)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def grade(verify: Callable[..., float], answer: str | None, entry: Mapping[str, Any], failures: list[str]) -> float:
    """The verifier's score; 0 and a note where it cannot make sense of the answer."""
    try:
        return float(verify(answer=answer, entry=entry))
    except Exception as error:  # verifiers parse what models write, and some let any error escape
        failures.append(f"{type(error).__name__}: {error}"[:200])
        return 0.0
