"""What a candidate is judged by: figures of its scores, or proxies that need no scoring. Higher is always better."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rlmerge.errors import RequestError, did_you_mean
from rlmerge.frozen import frozen

Table = Mapping[str, Mapping[str, Any]]
"""Scores by task and model: floats, or bootstrap draws [R]; arithmetic is the same."""


@frozen(slots=True)
class Standards:
    """What scores are measured by: the base, the experts that each task is the own one of, and where lower is better.

    ``models`` are base and experts.
    """

    base: str
    own: Mapping[str, tuple[str, ...]]
    falling: frozenset[str] = frozenset()

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every own task with its expert."""
        return [(task, expert) for task, experts in self.own.items() for expert in experts]

    @property
    def others(self) -> list[str]:
        """Tasks that are no expert's own."""
        return [task for task, experts in self.own.items() if not experts]

    def sign(self, task: str) -> float:
        """−1 where lower is better."""
        return -1.0 if task in self.falling else 1.0


def gain_kept(table: Table, model: str, standards: Standards) -> Any:
    """Σ (merged − base) / Σ (expert − base) over own tasks: a ratio of sums, so small gains weigh little."""
    kept = total = 0.0
    for task, expert in standards.pairs:
        row, sign = table[task], standards.sign(task)
        kept = kept + sign * (row[model] - row[standards.base])
        total = total + sign * (row[expert] - row[standards.base])
    return _ratio(kept, total)


def worst(table: Table, model: str, standards: Standards) -> Any:
    """The smallest share of an expert's gain kept on one of its own tasks."""
    shares: list[Any] = []
    for task, expert in standards.pairs:
        row = table[task]
        shares.append(_ratio(row[model] - row[standards.base], row[expert] - row[standards.base]))
    return np.min(np.stack(shares), axis=0)


def off_task(table: Table, model: str, standards: Standards) -> Any:
    """Σ (merged − base) / Σ |base| over the tasks that no expert was trained for: below 0 is a degradation."""
    changed = total = 0.0
    for task in standards.others:
        row = table[task]
        changed = changed + standards.sign(task) * (row[model] - row[standards.base])
        total = total + abs(row[standards.base])
    return _ratio(changed, total)


def mean(table: Table, model: str, standards: Standards) -> Any:
    """The plain mean of the scores over the tasks where higher is better."""
    return sum(table[task][model] for task in _rising(table, standards)) / len(_rising(table, standards))


def _rising(table: Table, standards: Standards) -> list[str]:
    return [task for task in table if task not in standards.falling]


def _ratio(part: Any, whole: Any) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.divide(part, whole)


Figure = Callable[[Table, str, Standards], Any]

FIGURES: dict[str, tuple[Figure, str]] = {
    "gain_kept": (gain_kept, "share of the experts' gains kept, Σ (merged − base) / Σ (expert − base)"),
    "worst": (worst, "smallest share of an expert's gain kept on one of its own tasks"),
    "off_task": (off_task, "relative change on the tasks of no expert; below 0 is a degradation"),
    "mean": (mean, "mean score over the tasks"),
}
"""Figures of real scores, by the name an objective calls them."""

KL = "proxy:kl"
"""The proxy that needs prompts, torch and a pass of the merged model."""

PROXIES = {
    "proxy:survival": "share of the experts' changes that are still there in the stored weights, mean over experts",
    "proxy:retention": "coefficient at which an expert's own changes are stored, at most 1, mean over experts",
    KL: "minus KL(expert ‖ merged) in nats a token on what an expert says to its prompts, mean over experts",
}
"""Figures of the merge itself, which need no answers to score by. None of them is a score."""

TASK = "task:"
"""What the score of a single task is called: ``task:NAME``."""


@frozen(slots=True)
class Objective:
    """A weighted sum of figures, of one kind: of scores, or proxies."""

    terms: tuple[tuple[str, float], ...]

    @property
    def name(self) -> str:
        """How reports call it: ``gain_kept``, or ``gain_kept + 0.5 off_task``."""
        if len(self.terms) == 1 and self.terms[0][1] == 1:
            return self.terms[0][0]
        return " + ".join(name if weight == 1 else f"{weight:g} {name}" for name, weight in self.terms)

    @property
    def is_proxy(self) -> bool:
        """Whether it is computed from the merge alone."""
        return all(name in PROXIES for name, _ in self.terms)

    @property
    def needs_prompts(self) -> bool:
        """Whether it compares what experts and merge say."""
        return any(name == KL for name, _ in self.terms)

    @property
    def needs_account(self) -> bool:
        """Whether it is what the merge says of itself."""
        return any(name in PROXIES and name != KL for name, _ in self.terms)

    def describe(self) -> str:
        """What its figures mean."""
        return "; ".join(f"{name}: {_meaning(name)}" for name, _ in self.terms)

    def of_scores(self, table: Table, model: str, standards: Standards) -> Any:
        """The objective of one model in ``table``: a float, or draws [R]."""
        return sum(weight * _figure(name)(table, model, standards) for name, weight in self.terms)

    def of_proxies(self, proxies: Mapping[str, float]) -> float:
        """The objective of a merge whose proxies are known."""
        return sum(weight * proxies[name] for name, weight in self.terms)

    def check(self, standards: Standards, tasks: Sequence[str]) -> None:
        """RequestError when the figures mean nothing for these models and tasks."""
        for name, _ in self.terms:
            if name in ("gain_kept", "worst") and not standards.pairs:
                what = f"'{name}' needs a task on which an expert is better than the base beyond doubt, and none is"
                hint = "Name them: --own EXPERT=TASK, give more items, or take the objective 'mean'."
                raise RequestError(what, where="objective", hint=hint)
            if name == "off_task" and not standards.others:
                hint = "Add tasks that no expert was trained for."
                raise RequestError("'off_task' needs a task that is no expert's own", where="objective", hint=hint)
            if name.startswith(TASK) and name.removeprefix(TASK) not in tasks:
                task = name.removeprefix(TASK)
                raise RequestError(f"unknown task '{task}'", where="objective", hint=did_you_mean(task, tasks))
            if name == "mean" and all(task in standards.falling for task in tasks):
                hint = "Take 'gain_kept', or a task by its name: task:NAME."
                raise RequestError("'mean' needs a task where higher is better", where="objective", hint=hint)


def _figure(name: str) -> Figure:
    if not name.startswith(TASK):
        return FIGURES[name][0]
    task = name.removeprefix(TASK)
    return lambda table, model, standards: standards.sign(task) * table[task][model]


def _meaning(name: str) -> str:
    if name.startswith(TASK):
        return f"score on {name.removeprefix(TASK)}"
    return FIGURES[name][1] if name in FIGURES else f"{PROXIES[name]} (a proxy, not a score)"


def read_objective(value: object, where: str) -> Objective:
    """An objective as text (``gain_kept`` or ``gain_kept=1,off_task=0.5``) or as weights by name.

    RequestError for an unknown figure, a weight that is no number, or proxies mixed with scores.
    """
    if isinstance(value, str) and "=" in value:
        parts = [part.partition("=") for part in value.split(",")]
        given: Mapping[object, object] = {name.strip(): _weight(weight) for name, _, weight in parts}
    elif isinstance(value, str):
        given = {value: 1.0}
    elif isinstance(value, Mapping) and value:
        given = dict(value)
    else:
        hint = "Write a name such as gain_kept, or weights by name: {gain_kept: 1, off_task: 0.5}."
        raise RequestError("this is no objective", where=where, hint=hint)
    terms: list[tuple[str, float]] = []
    for name, weight in given.items():
        if name not in FIGURES and name not in PROXIES and not str(name).startswith(TASK):
            hint = did_you_mean(str(name), [*FIGURES, *PROXIES, f"{TASK}NAME"])
            raise RequestError(f"unknown objective '{name}'", where=where, hint=hint)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not np.isfinite(weight) or weight <= 0:
            hint = "Every figure is better when it is higher; weights are above 0."
            raise RequestError(f"the weight of '{name}' is {weight!r}", where=where, hint=hint)
        terms.append((str(name), float(weight)))
    if len({name in PROXIES for name, _ in terms}) > 1:
        hint = "Give them as two objectives, or take one."
        raise RequestError("an objective cannot add up proxies and scores", where=where, hint=hint)
    return Objective(tuple(terms))


def _weight(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return text
