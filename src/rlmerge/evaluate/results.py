"""What an evaluation found, as frozen data with a versioned plain form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlmerge._version import __version__
from rlmerge.evaluate.evaluator import Score
from rlmerge.evaluate.health import Health
from rlmerge.evaluate.landscape.loss import Landscape
from rlmerge.evaluate.statistics import Interval
from rlmerge.frozen import frozen
from rlmerge.jsondata import plain_fields

SCHEMA = "rlmerge.eval/1"


@frozen(slots=True)
class ScoredModel:
    """One model of the comparison; ``scored`` is ``cached`` when every score was found in the store, else ``now``."""

    name: str
    path: Path
    role: str
    digest: str
    scored: str
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data; of the path the last part, for the rest means nothing elsewhere."""
        rest = {"role": self.role, "digest": self.digest, "scored": self.scored, "notes": list(self.notes)}
        return {"name": self.name, "path_name": self.path.name, **rest}


@frozen(slots=True)
class Task:
    """One task with the metric that models are judged by, and the experts that it is the own task of."""

    task: str
    metric: str
    higher_is_better: bool
    n: int | None
    k: int | None
    experts: tuple[str, ...]


@frozen(slots=True)
class Cell:
    """One model's score on one task; ``interval`` has the score as its value."""

    model: str
    score: Score
    interval: Interval

    def to_dict(self) -> dict[str, Any]:
        """Plain data without the single items."""
        score, interval = self.score, self.interval
        return {
            "model": self.model,
            "task": score.task,
            "metric": score.metric,
            "value": score.value,
            "stderr": score.stderr,
            "low": interval.low,
            "high": interval.high,
            "n": score.n,
            "k": score.k,
            "details": score.details,
        }


@frozen(slots=True)
class Survival:
    """What a merge kept of one expert on a task that is the expert's own.

    ``retention`` is merged / expert and ``degradation`` (merged − expert) / expert, inverted and negated where lower
    scores are better, so that below 1 and below 0 always mean a loss. ``gain_kept`` is (merged − base) / (expert −
    base), None unless the expert beats the base beyond doubt. Ratios are None unless what they divide by is above 0
    beyond doubt.
    """

    task: str
    expert: str
    base_value: float
    expert_value: float
    merged_value: float
    retention: Interval | None
    degradation: Interval | None
    gain_kept: Interval | None
    difference_to_expert: Interval
    difference_to_base: Interval
    verdict_to_expert: str
    verdict_to_base: str


@frozen(slots=True)
class Merge:
    """A merge in short: the plain mean of its scores over the tasks where higher is better, the mean share of the
    experts' gains and of the experts' scores that it kept on their own tasks, and where it kept least."""

    model: str
    mean: Interval | None
    worst: Survival | None
    gain_kept: Interval | None
    retention: Interval | None
    per_task: tuple[Survival, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data; of the worst task its name, expert and retention."""
        worst = self.worst
        least = worst and worst.retention
        short = worst and least and {"task": worst.task, "expert": worst.expert, "retention": least.value}
        return {**plain_fields(self), "worst": short}


@frozen(slots=True)
class Comparison:
    """Model ``a`` minus model ``b`` on one task, or on the ``mean`` over tasks; the verdict is about ``a``."""

    a: str
    b: str
    task: str
    difference: Interval
    verdict: str


@frozen(slots=True)
class Evaluation:
    """Scores of base, experts and merges, and what they say about each merge.

    ``scores`` holds the metric that models are judged by, ``other_scores`` the harnesses' further ones.
    """

    models: tuple[ScoredModel, ...]
    tasks: tuple[Task, ...]
    scores: tuple[Cell, ...]
    other_scores: tuple[Cell, ...]
    merges: tuple[Merge, ...]
    comparisons: tuple[Comparison, ...]
    health: Health | None
    landscape: Landscape | None
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data under the schema ``rlmerge.eval/1``; a figure that is not known is None."""
        return {"schema": SCHEMA, "rlmerge": __version__, **plain_fields(self)}

    def to_json(self) -> str:
        """``to_dict`` as indented JSON."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)
