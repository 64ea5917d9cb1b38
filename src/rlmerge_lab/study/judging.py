"""Scores of models in memory, and what a merge kept of its experts, in all the denominators papers use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from rlmerge.errors import RequestError
from rlmerge.evaluate.tasks import Item, read_items, read_vocabulary, score
from rlmerge_lab.study.family import Family

Pass = dict[str, float]
"""pass@1 by task: the mean exact probability of a correct sample at temperature 1."""

MIN_GAIN = 0.01
"""Gain of an expert over the base, in pass@1, below which no share of it is taken: a ratio to noise says nothing."""


@dataclass(frozen=True, slots=True)
class Exam:
    """The questions of one split: the first ``limit`` items of each task in ``file`` (None: all of them)."""

    file: Path
    limit: int | None
    digest: str

    @classmethod
    def of(cls, file: Path, limit: int | None) -> Exam:
        """An exam that knows its file's content; RequestError when that cannot be read."""
        try:
            return cls(file, limit, xxhash.xxh3_128_hexdigest(file.read_bytes()))
        except OSError as error:
            hint = "Make the lab's data first: rlmerge lab train."
            raise RequestError(f"cannot be read ({error.strerror})", where=str(file), hint=hint) from error

    @property
    def family(self) -> type[Family]:
        """How the models that this exam scores are held in memory."""
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
            found = score(model, self.items(tasks), _vocabulary(home))
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
def _vocabulary(home: Path) -> dict[str, int]:
    return read_vocabulary(home)


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
