"""Exams of language models: merges in memory write answers on the device, and verifiers judge them."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from rlmerge.errors import RequestError
from rlmerge.evaluate.weights import read_weights
from rlmerge.sensitivity.model import find_device
from rlmerge_lab.study.family import Family, Shaped
from rlmerge_lab.study.judging import Exam, Pass
from rlmerge_lab.training.gym import GymQuestion, GymTasks
from rlmerge_lab.training.profiles import Profile
from rlmerge_lab.training.sampler import SIDE_BY_SIDE, Sampler

_ALL = 2**63


@dataclass(frozen=True, slots=True)
class SampledExam(Exam):
    """Questions of reasoning-gym, ``samples`` answers to each of at most ``tokens`` tokens.

    ``gym`` is the settings of each task's data set as JSON. All models write with the same random numbers, so that
    differences between them are less noisy than their scores.
    """

    gym: str
    samples: int
    tokens: int
    device: str = "auto"

    @classmethod
    def of_profile(cls, file: Path, limit: int | None, profile: Profile) -> SampledExam:
        """The exam on the questions in ``file`` that a laboratory of ``profile`` holds."""
        digest = Exam.of(file, limit).digest
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


@dataclass(frozen=True, slots=True)
class Shapes:
    """The tensors of a language model as they are stored."""

    found: Mapping[str, tuple[int, ...]]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return dict(self.found)


class LanguageFamily(Family):
    """A base and experts of any architecture; what is scored are tensors by name."""

    @staticmethod
    def read_model(path: Path) -> tuple[Shaped, Mapping[str, Any]]:
        weights = read_weights(path, memory=_ALL)
        return Shapes({name: array.shape for name, array in weights.items()}), weights

    def model(self, weights: Any) -> Any:
        return self.state(weights)


def exam_of(lab: Any, split: str, limit: int | None) -> Exam:
    """The exam on a split of ``lab``: sampled where its profile has data sets of reasoning-gym, exact elsewhere."""
    if isinstance(lab.profile, Profile) and lab.profile.gym:
        return SampledExam.of_profile(lab.items(split), limit, lab.profile)
    return Exam.of(lab.items(split), limit)


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
