"""What an evaluation harness is to rlmerge: a model directory and tasks in, scores out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from rlmerge.errors import RunError
from rlmerge.frozen import frozen
from rlmerge.jsondata import plain_fields


@frozen(slots=True)
class Score:
    """How one model did on one task by one metric.

    ``stderr`` is the standard error of ``value`` over the ``n`` items; ``k`` is how many samples an item was given,
    None where the figure is exact or greedy. ``items`` [n] holds the metric item by item, in an order that is the same
    for every model and with ``value`` as their mean, so that models are compared pair by pair; a harness that tells
    totals only leaves it None. ``details`` is whatever the harness adds, such as the path of its own result file.
    RunError when a figure is not finite.
    """

    task: str
    metric: str
    value: float
    stderr: float | None = None
    n: int | None = None
    k: int | None = None
    higher_is_better: bool = True
    items: tuple[float, ...] | None = None
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        figures = (self.value, *(() if self.stderr is None else (self.stderr,)), *(self.items or ()))
        wrong = next((figure for figure in figures if not math.isfinite(figure)), None)
        if wrong is not None:
            hint = "Only finite scores can be compared; look at the harness's own output."
            raise RunError(f"the score {self.metric!r} is {wrong}", where=f"task {self.task!r}", hint=hint)

    @classmethod
    def of_items(cls, task: str, metric: str, items: Sequence[float], **rest: Any) -> Score:
        """The mean of per-item scores with its standard error, s / √n (None for a single item)."""
        count = len(items)
        if not count:
            raise RunError("has no items to score", where=f"task {task!r}", hint="Name a file or data set with items.")
        mean = math.fsum(items) / count
        spread = math.fsum((item - mean) ** 2 for item in items)
        stderr = math.sqrt(spread / (count - 1) / count) if count > 1 else None
        return cls(task, metric, mean, stderr, count, items=tuple(float(item) for item in items), **rest)

    def to_dict(self) -> dict[str, Any]:
        """The score as plain data, from which ``from_dict`` makes it again."""
        return plain_fields(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Score:
        """The score that ``to_dict`` described; KeyError, TypeError or ValueError for other fields."""
        items = fields["items"]
        return cls(
            task=str(fields["task"]),
            metric=str(fields["metric"]),
            value=float(fields["value"]),
            stderr=None if fields["stderr"] is None else float(fields["stderr"]),
            n=None if fields["n"] is None else int(fields["n"]),
            k=None if fields["k"] is None else int(fields["k"]),
            higher_is_better=bool(fields["higher_is_better"]),
            items=None if items is None else tuple(float(item) for item in items),
            details=dict(fields["details"]),
        )


@runtime_checkable
class Evaluator(Protocol):
    """Anything that scores a model directory: a harness of its own, a subprocess, a few lines of NumPy."""

    @property
    def name(self) -> str:
        """What reports call it, such as ``exact`` or ``lm-eval``."""
        ...

    def identity(self) -> Mapping[str, Any]:
        """Everything but the model and the task that decides the scores (digests of data, versions, options), as JSON.

        It is part of the key under which scores are cached: what is missing here is served stale.
        """
        ...

    def score(self, model: Path, tasks: Sequence[str]) -> Sequence[Score]:
        """One score or more for each of ``tasks``, in their order; a task's first is the one that models are judged by.

        RequestError when the request is wrong (no such task, nothing installed, a model it cannot read), RunError when
        the harness fails; either names the task, the command, and the end of what the harness printed.
        """
        ...


@runtime_checkable
class ClosableEvaluator(Evaluator, Protocol):
    """An evaluator that keeps a model in memory between calls."""

    def close(self) -> None:
        """Give the memory back; called before another evaluator's turn and at the end. It stays usable."""
        ...
