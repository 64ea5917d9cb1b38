"""Any data set of reasoning-gym, judged by its own verifier."""

from __future__ import annotations

import importlib.metadata
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from rlmerge.errors import RequestError, did_you_mean
from rlmerge.evaluate.evaluator import Score
from rlmerge.evaluate.generate import Generator, Sample, Sampling
from rlmerge.extras import require
from rlmerge.frozen import frozen
from rlmerge.language.gym import FULL_SCORE, answer_in, grade, open_dataset

BARE = "none"
"""The prompt style that gives the question alone and takes the whole output as the answer."""


@frozen(slots=True)
class Gym:
    """Scores models on reasoning-gym data sets with ``sampling.samples`` outputs for each question.

    A task is ``DATASET`` or ``DATASET?key=value&…``, the settings of the data set with ``size`` (100) and ``seed`` (0)
    among them. ``prompt`` is one of reasoning-gym's own instructions (``default``, ``simple``, ``direct``, …), put
    before the question; the answer then is what stands between the last ``<answer>`` tags. The score ``avg@k`` is the
    mean of the verifier's scores in [0, 1], ``pass@k`` the share of questions with a fully right output.
    """

    generator: Generator
    sampling: Sampling
    prompt: str = "default"
    limit: int | None = None

    name = "gym"

    def __post_init__(self) -> None:
        styles = {BARE, *require("reasoning_gym").utils.SYSTEM_PROMPTS}
        if self.prompt not in styles:
            hint = did_you_mean(self.prompt, styles)
            raise RequestError(f"unknown reasoning-gym prompt style {self.prompt!r}", hint=hint)

    def identity(self) -> dict[str, object]:
        """Versions, the generator's identity, and every option."""
        how = self.sampling
        return {
            "reasoning-gym": importlib.metadata.version("reasoning-gym"),
            "generator": dict(self.generator.identity()),
            "samples": [how.samples, how.temperature, how.max_new_tokens, how.seed],
            "prompt": [self.prompt, how.chat],
            "limit": self.limit,
        }

    def check(self, tasks: Sequence[str]) -> None:
        """RequestError when one of ``tasks`` is not a data set or has settings that it does not take."""
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
        prompts = [f"{style}\n\n{entry['question']}" if style else entry["question"] for entry in entries]
        outputs = self.generator.generate(model, prompts, self.sampling)
        failures: list[str] = []
        grades = [
            [grade(dataset, self._answer(sample), entry, failures) for sample in samples]
            for samples, entry in zip(outputs, entries, strict=True)
        ]
        stopped = [sample.stopped for samples in outputs for sample in samples]
        details = {"stop_rate": sum(stopped) / len(stopped), "verifier_errors": failures}
        means = [math.fsum(found) / len(found) for found in grades]
        k = self.sampling.samples
        scores = [Score.of_items(task, f"avg@{k}", means, k=k, details=details)]
        if k > 1:
            best = [float(max(found) >= FULL_SCORE) for found in grades]
            scores.append(Score.of_items(task, f"pass@{k}", best, k=k, details=details))
        return scores

    def _answer(self, sample: Sample) -> str | None:
        return sample.text.strip() if self.prompt == BARE else answer_in(sample.text)


def _open_task(task: str) -> Any:
    """The data set of a task with its settings."""
    name, _, text = task.partition("?")
    where = f"gym:{task}"
    try:
        settings = {key: _value(value) for key, value in parse_qsl(text, strict_parsing=bool(text))}
    except ValueError as error:
        hint = f"Write gym:{name}?key=value&key=value with the settings of that data set."
        raise RequestError(f"cannot read the settings ({error})", where=where, hint=hint) from None
    dataset = open_dataset(name, {"size": 100, "seed": 0, **settings}, where)
    if len(dataset) < 1:
        raise RequestError("holds no questions", where=where, hint="Set size to at least 1.")
    return dataset


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
