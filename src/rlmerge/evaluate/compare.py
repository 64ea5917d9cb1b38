"""From scores to statements: what each merge kept of each expert, and which differences are beyond doubt.

Every figure is computed on the same bootstrap samples of the items, so differences and ratios of models are paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from rlmerge.errors import RequestError, did_you_mean
from rlmerge.evaluate.evaluator import Score
from rlmerge.evaluate.results import Comparison, Merge, Survival
from rlmerge.evaluate.statistics import Interval, percentiles, resample, verdict
from rlmerge.frozen import frozen

Scores = Mapping[str, Mapping[str, Score]]
"""Scores by task and model."""

MEAN = "mean"
"""What a comparison of means over tasks is called."""

INCIDENTAL = 0.2
"""A gain below this share of an expert's largest one does not make a task its own."""


@frozen(slots=True)
class Quantity:
    """A figure and its bootstrap draws [R]; arithmetic acts on both."""

    value: float
    draws: np.ndarray

    def __sub__(self, other: Quantity) -> Quantity:
        return Quantity(self.value - other.value, self.draws - other.draws)

    def __truediv__(self, other: Quantity) -> Quantity:
        with np.errstate(divide="ignore", invalid="ignore"):
            return Quantity(float(np.float64(self.value) / other.value), self.draws / other.draws)

    @property
    def interval(self) -> Interval:
        """The figure with its 95 % percentile interval."""
        return percentiles(self.value, self.draws)

    @property
    def is_positive(self) -> bool:
        """Whether the figure may be divided by: it is above 0, and no interval says that it might not be."""
        return self.value > 0 and not self.interval.low <= 0


def mean(quantities: Sequence[Quantity]) -> Quantity:
    """The plain mean."""
    value = float(np.mean([quantity.value for quantity in quantities]))
    return Quantity(value, np.mean([quantity.draws for quantity in quantities], axis=0))


def check_own(own: Mapping[str, Sequence[str]], experts: Sequence[str], tasks: Sequence[str]) -> None:
    """RequestError when ``own`` gives an unknown expert a task, or an expert an unknown one."""
    for expert, theirs in own.items():
        if expert not in experts:
            raise RequestError(f"unknown expert {expert!r}", where="--own", hint=did_you_mean(expert, experts))
        unknown = next((task for task in theirs if task not in tasks), None)
        if unknown is not None:
            raise RequestError(f"unknown task {unknown!r}", where="--own", hint=did_you_mean(unknown, tasks))


class Comparer:
    """Compares the models of one evaluation; ``roles`` maps each to ``base``, ``expert`` or ``merge``."""

    def __init__(self, scores: Scores, roles: Mapping[str, str], *, seed: int = 0) -> None:
        self.warnings: list[str] = []
        self._scores = scores
        self._base = next(name for name, role in roles.items() if role == "base")
        self._experts = [name for name, role in roles.items() if role == "expert"]
        self._merges = [name for name, role in roles.items() if role == "merge"]
        self._higher = {task: next(iter(found.values())).higher_is_better for task, found in scores.items()}
        self._table: dict[str, dict[str, Quantity]] = {}
        for task, found in scores.items():
            resampled = resample(found, seed=seed)
            self._table[task] = {name: Quantity(found[name].value, resampled.draws[name]) for name in found}
            self.warnings += [resampled.warning] if resampled.warning else []
        self._averaged = [task for task, higher in self._higher.items() if higher]
        if 0 < len(self._averaged) < len(scores):
            left = ", ".join(task for task, higher in self._higher.items() if not higher)
            self.warnings.append(f"means over tasks leave out {left}, where lower is better")

    def interval(self, task: str, model: str) -> Interval:
        """A score with its interval."""
        return self._table[task][model].interval

    def own_tasks(self, given: Mapping[str, Sequence[str]] | None) -> dict[str, tuple[str, ...]]:
        """Experts by the task that is theirs: as ``given`` by expert, or else found from the scores.

        A task is found to be that expert's which gains most on it over the base, if the gain is beyond doubt and at
        least ``INCIDENTAL`` of the expert's largest: skills drift a little wherever an expert was not trained.
        """
        if given is not None:
            return {task: tuple(name for name, tasks in given.items() if task in tasks) for task in self._table}
        gains = {task: self._gains(task) for task in self._table}
        most = {name: max((row.get(name, 0.0) for row in gains.values()), default=0.0) for name in self._experts}
        best = {task: max(row, key=lambda name: row[name], default="") for task, row in gains.items()}
        return {
            task: (name,) if name and gains[task][name] >= INCIDENTAL * most[name] else ()
            for task, name in best.items()
        }

    def _gains(self, task: str) -> dict[str, float]:
        """Gains over the base, positive, of the experts that beat it beyond doubt."""
        row, higher = self._table[task], self._higher[task]
        found = {name: (row[name] - row[self._base]).interval for name in self._experts}
        return {name: abs(gain.value) for name, gain in found.items() if verdict(gain, higher) == "better"}

    def merge(self, model: str, own: Mapping[str, Sequence[str]]) -> Merge:
        """What ``model`` kept of every expert on its own tasks."""
        pairs = [(task, expert) for task, experts in own.items() for expert in experts]
        rows = tuple(self._survival(model, task, expert) for task, expert in pairs)
        known = [(row, row.retention.value) for row in rows if row.retention is not None]
        gains = [self._gain(model, row.task, row.expert) for row in rows if row.gain_kept is not None]
        kept = [self._retention(model, row.task, row.expert) for row, _ in known]
        return Merge(
            model=model,
            mean=self._mean(model).interval if self._averaged else None,
            worst=min(known, key=lambda pair: pair[1])[0] if known else None,
            gain_kept=mean(gains).interval if gains else None,
            retention=mean(kept).interval if kept else None,
            per_task=rows,
        )

    def _mean(self, model: str) -> Quantity:
        return mean([self._table[task][model] for task in self._averaged])

    def _gain(self, model: str, task: str, expert: str) -> Quantity:
        row = self._table[task]
        return (row[model] - row[self._base]) / (row[expert] - row[self._base])

    def _retention(self, model: str, task: str, expert: str) -> Quantity:
        row = self._table[task]
        return row[model] / row[expert] if self._higher[task] else row[expert] / row[model]

    def _survival(self, model: str, task: str, expert: str) -> Survival:
        row, higher = self._table[task], self._higher[task]
        to_expert, to_base = (row[model] - row[expert]).interval, (row[model] - row[self._base]).interval
        gain = (row[expert] - row[self._base]).interval
        positive = row[expert].is_positive and (higher or row[model].is_positive)
        loss = (row[model] - row[expert]) if higher else (row[expert] - row[model])
        return Survival(
            task=task,
            expert=expert,
            base_value=row[self._base].value,
            expert_value=row[expert].value,
            merged_value=row[model].value,
            retention=self._retention(model, task, expert).interval if positive else None,
            degradation=(loss / row[expert]).interval if positive else None,
            gain_kept=self._gain(model, task, expert).interval if verdict(gain, higher) == "better" else None,
            difference_to_expert=to_expert,
            difference_to_base=to_base,
            verdict_to_expert=verdict(to_expert, higher),
            verdict_to_base=verdict(to_base, higher),
        )

    def comparisons(self) -> Iterator[Comparison]:
        """Every pair of merges, and every merge with the base, on each task and on the mean."""
        pairs = [*combinations(self._merges, 2), *((name, self._base) for name in self._merges)]
        for a, b in pairs:
            for task, row in self._table.items():
                difference = (row[a] - row[b]).interval
                yield Comparison(a, b, task, difference, verdict(difference, self._higher[task]))
            if len(self._averaged) > 1:
                difference = (self._mean(a) - self._mean(b)).interval
                yield Comparison(a, b, MEAN, difference, verdict(difference, True))
