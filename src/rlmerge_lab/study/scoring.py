"""Scores of models in memory, exact or of sampled answers, and what a merge kept of its experts."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from rlmerge.errors import RequestError
from rlmerge.evaluate.exact import Item, read_items, score
from rlmerge.language.characters import Encode, read_encoder
from rlmerge.language.model import find_device
from rlmerge_lab.training.directory import Lab
from rlmerge_lab.training.gym import SIDE_BY_SIDE, GymQuestion, GymTasks, Sampler
from rlmerge_lab.training.profiles import Profile

from .family import Family, LanguageFamily

Pass = dict[str, float]
"""pass@1 by task: the mean exact probability of a correct sample at temperature 1."""

MIN_GAIN = 0.01
"""Gain of an expert over the base, in pass@1, below which no share of it is taken: a ratio to noise says nothing."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The questions of one split: the first ``limit`` items of each task in ``file`` (None: all of them)."""

    file: Path
    limit: int | None
    digest: str

    @property
    def scores(self) -> str:
        """How scores come about: ``exact``, or of ``sampled`` answers."""
        return "exact"

    @classmethod
    def of(cls, file: Path, limit: int | None) -> Evaluation:
        """An evaluation that knows its file's content; RequestError when that cannot be read."""
        try:
            return cls(file, limit, xxhash.xxh3_128_hexdigest(file.read_bytes()))
        except OSError as error:
            hint = "Make the lab's data first: rlmerge lab train."
            raise RequestError(f"cannot be read ({error.strerror})", where=str(file), hint=hint) from error

    @property
    def family(self) -> type[Family]:
        """How the models that this evaluation scores are held in memory."""
        return Family

    def processes(self, cores: int) -> int:
        """How many models are best scored side by side on so many ``cores``."""
        return cores

    def items(self, tasks: Sequence[str]) -> tuple[Item, ...]:
        """The questions of ``tasks``, task after task; RequestError when one has none."""
        return _items(self.file, self.digest, self.limit, tuple(tasks))

    def passes(self, model: Any, home: Path, tasks: Sequence[str]) -> tuple[Pass, Pass]:
        """pass@1 and share of greedy answers that are right, by task; ``home`` has the vocabulary.

        Weights far from every trained model may overflow; where logits are no numbers, no answer is right.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            found = score(model, self.items(tasks), _encoder(home))
        own = {task: found.on(task) for task in tasks}
        sampled = {task: float(np.nan_to_num(scores.probability).mean()) for task, scores in own.items()}
        return sampled, {task: float(scores.greedy.mean()) for task, scores in own.items()}

    def to_dict(self) -> dict[str, Any]:
        """What decides scores, and not where it lies."""
        return {"limit": self.limit, "digest": self.digest}


@lru_cache(maxsize=16)
def _items(file: Path, digest: str, limit: int | None, tasks: tuple[str, ...]) -> tuple[Item, ...]:
    items = read_items(file)
    chosen = {task: [item for item in items if item.task == task][:limit] for task in tasks}
    empty = next((task for task in tasks if not chosen[task]), None)
    if empty is not None:
        raise RequestError(f"has no items of task '{empty}'", where=str(file), hint="Make the lab's data again.")
    return tuple(item for task in tasks for item in chosen[task])


@lru_cache(maxsize=16)
def _encoder(home: Path) -> Encode:
    return read_encoder(home)


@dataclass(frozen=True, slots=True)
class SampledEvaluation(Evaluation):
    """Questions of reasoning-gym, ``samples`` answers to each of at most ``tokens`` tokens.

    ``gym`` is the settings of each task's data set as JSON. All models write with the same random numbers, so that
    differences between them are less noisy than their scores.
    """

    gym: str
    samples: int
    tokens: int
    device: str = "auto"

    @property
    def scores(self) -> str:
        return "sampled"

    @classmethod
    def of_profile(cls, file: Path, limit: int | None, profile: Profile) -> SampledEvaluation:
        """The evaluation on the questions in ``file`` that a laboratory of ``profile`` holds."""
        digest = Evaluation.of(file, limit).digest
        return cls(file, limit, digest, json.dumps(profile.gym, sort_keys=True), profile.samples, profile.answer_tokens)

    @property
    def family(self) -> type[Family]:
        return LanguageFamily

    def processes(self, cores: int) -> int:
        return min(cores, SIDE_BY_SIDE)

    def passes(self, model: Any, home: Path, tasks: Sequence[str]) -> tuple[Pass, Pass]:
        """avg@k and share of right greedy answers, by task, of ``model``, tensors by name."""
        judge = _sampler(home, self.device)
        judge.place(model)
        return self._share(judge, tasks, self.samples), self._share(judge, tasks, 0)

    def to_dict(self) -> dict[str, Any]:
        asked = {"limit": self.limit, "digest": self.digest, "gym": json.loads(self.gym)}
        version = importlib.metadata.version("reasoning-gym")
        how = {"samples": self.samples, "tokens": self.tokens, "device": find_device(self.device).type}
        return {**asked, **how, "reasoning-gym": version}

    def _share(self, judge: Sampler, tasks: Sequence[str], samples: int) -> Pass:
        """Share of right answers by task; those to all tasks are written together, which keeps a device busier."""
        asked = {task: _questions(self.file, self.digest, self.limit, task) for task in tasks}
        prompts = [question.prompt for questions in asked.values() for question in questions]
        said = iter(judge.sample(prompts, samples, self.tokens, 0))
        judged = _tasks(self.gym)
        return {task: judged.share_right(found, [next(said) for _ in found]) for task, found in asked.items()}


def evaluation_of(lab: Lab, split: str, limit: int | None) -> Evaluation:
    """How a split of ``lab`` is scored: on sampled answers where its tasks are of reasoning-gym, exactly elsewhere."""
    if lab.profile.gym:
        return SampledEvaluation.of_profile(lab.items(split), limit, lab.profile)
    return Evaluation.of(lab.items(split), limit)


@lru_cache(maxsize=16)
def _questions(file: Path, digest: str, limit: int | None, task: str) -> tuple[GymQuestion, ...]:
    rows = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    found = [GymQuestion.parse(fields) for fields in rows if fields["task"] == task][:limit]
    if not found:
        raise RequestError(f"has no items of task '{task}'", where=str(file), hint="Make the lab's data again.")
    return tuple(found)


@lru_cache(maxsize=1)
def _sampler(home: Path, device: str) -> Sampler:
    return Sampler(home, find_device(device))


@lru_cache(maxsize=4)
def _tasks(gym: str) -> GymTasks:
    return GymTasks(json.loads(gym))


@dataclass(frozen=True, slots=True)
class Reference:
    """What merges are compared with: the base on every task, and each task's own expert on it."""

    base: Pass
    expert: Pass

    def outcome(self, merged: Mapping[str, float]) -> Outcome:
        """What ``merged`` kept of the experts, over its own tasks."""
        kept: dict[str, float | None] = {}
        retention: list[float] = []
        gained = won = 0.0
        for task, value in merged.items():
            base, expert = self.base[task], self.expert[task]
            gain = expert - base
            gained, won = gained + value - base, won + gain
            kept[task] = (value - base) / gain if gain >= MIN_GAIN else None
            if expert > 0:
                retention.append(value / expert)
        mean = float(np.mean(retention)) if retention else None
        return Outcome(
            # Of sums and not a mean of ratios, which the task that gained least would rule.
            gain_kept=gained / won if won >= MIN_GAIN * len(merged) else None,
            retention=mean,
            degradation=None if mean is None else mean - 1.0,
            kept=kept,
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """Over the tasks of a set: ``gain_kept``, the sum of merged - base by the sum of expert - base where the experts
    gained ``MIN_GAIN`` on average; means of ``retention`` merged/expert and ``degradation`` (merged - expert)/expert.
    ``kept`` is the gain kept by task, of experts that gained ``MIN_GAIN``. None where there is no denominator."""

    gain_kept: float | None
    retention: float | None
    degradation: float | None
    kept: Mapping[str, float | None]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def goal(outcome: Outcome, merged: Mapping[str, float]) -> float:
    """What tuning maximises: gain kept, or where no expert gained anything, mean pass@1."""
    return float(np.mean(list(merged.values()))) if outcome.gain_kept is None else outcome.gain_kept
