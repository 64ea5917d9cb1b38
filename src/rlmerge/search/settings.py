"""What a search is asked for: the ``tune:`` section of a search file, and what the command line says over it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from rlmerge.errors import RequestError, did_you_mean
from rlmerge.recipe.tree import Node

from .objectives import Objective, read_objective
from .scoring import EvalOptions

SAMPLERS = ("auto", "tpe", "cmaes", "nsga2", "random")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A search beside its space.

    ``tasks`` are those of ``rlmerge eval``, on items to choose by; ``test`` are others, on items that no choice has
    seen. ``trials`` and ``hours`` are the budget, whichever ends first; the hours are those of one call. ``round`` is
    how many candidates are merged in one read of the models. ``limit`` is the items of each task, ``test_limit`` those
    of each test task. ``prune`` stops the worse half of a round on the first quarter, then half, of the items. ``own``
    gives the tasks each expert was trained for. ``memory`` is what candidates may hold in memory, in bytes; beyond it
    they are written to disk.
    """

    tasks: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    objectives: tuple[Objective, ...] = (Objective((("gain_kept", 1.0),)),)
    trials: int = 32
    hours: float | None = None
    sampler: str = "auto"
    round: int = 8
    seed: int = 0
    limit: int | None = None
    test_limit: int | None = None
    prune: bool = True
    own: Mapping[str, Sequence[str]] | None = None
    memory: int = 2 * 2**30
    hook: str | None = None
    evaluate: EvalOptions = field(default_factory=EvalOptions)

    def __post_init__(self) -> None:
        """RequestError for values no search could use."""
        for name in ("trials", "round", "limit", "test_limit", "seed", "memory"):
            value, optional = getattr(self, name), name in ("limit", "test_limit")
            if value is None and optional:
                continue
            least = 0 if name == "seed" else 1
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                hint = "Give the search something to spend." if name == "trials" else f"Give at least {least}."
                raise RequestError(f"{name} must be a whole number of {least} or more, not {value!r}", hint=hint)
        hours = self.hours
        if hours is not None and (not _is_number(hours) or not hours > 0 or not math.isfinite(hours)):
            raise RequestError(f"hours must be a number above 0, not {hours!r}", hint="Write 0.5 for half an hour.")
        if self.sampler not in SAMPLERS:
            raise RequestError(f"unknown sampler '{self.sampler}'", hint=did_you_mean(self.sampler, SAMPLERS))
        if not self.tasks and not all(objective.is_proxy for objective in self.objectives):
            hint = "Name tasks to choose by, such as --tasks exact:dev.jsonl, or take a proxy as the objective."
            raise RequestError("the search has no tasks to score candidates on", hint=hint)
        shared = next((task for task in self.test if task in self.tasks), None)
        if shared is not None:
            hint = "Confirm the winner on items that did not choose it."
            raise RequestError(f"'{shared}' is both what the search chooses by and its test", hint=hint)

    @property
    def is_multiple(self) -> bool:
        """Whether there are several objectives, hence a Pareto front."""
        return len(self.objectives) > 1


def read_settings(node: Node | None, given: Mapping[str, Any]) -> Settings:
    """The settings written at ``tune:``, with what is ``given`` in their place. RequestError with the line."""
    found: dict[str, Any] = {}
    names = [each.name for each in fields(Settings) if each.name != "objectives"] + ["objective"]
    if node is not None and not isinstance(node.value, dict):
        raise RequestError("`tune` is a mapping", where=node.where, hint="Write tune: {tasks: […], trials: 32}.")
    for name, entry in (node.fields if node else {}).items():
        if name not in names:
            raise RequestError(f"`tune` has no '{name}'", where=entry.where, hint=did_you_mean(name, names))
        found[name] = _READERS.get(name, _scalar)(entry)
    found.update({name: value for name, value in given.items() if value is not None})
    if "objective" in found:
        objective = found.pop("objective")
        where = node.fields["objective"].where if node and "objective" in node.fields else "objective"
        several = objective if isinstance(objective, list | tuple) else [objective]
        found["objectives"] = tuple(read_objective(each, where) for each in several)
        if len(set(found["objectives"])) < len(several) or not several:
            raise RequestError("name every objective once", where=where, hint="Several make a Pareto front.")
    for name in ("tasks", "test"):
        if name in found:
            found[name] = tuple(found[name])
    if isinstance(found.get("evaluate"), Mapping):
        found["evaluate"] = _evaluation(found["evaluate"], node)
    try:
        return Settings(**found)
    except RequestError as error:
        place = next((entry.where for name, entry in (node.fields if node else {}).items() if name in error.what), None)
        raise RequestError(error.what, where=error.where or place, hint=error.hint) from None


def _evaluation(given: Mapping[str, Any], node: Node | None) -> EvalOptions:
    known = [each.name for each in fields(EvalOptions) if each.name != "limit"]
    unknown = next((name for name in given if name not in known), None)
    if unknown is not None:
        where = node.fields["evaluate"].where if node and "evaluate" in node.fields else None
        raise RequestError(f"`evaluate` has no '{unknown}'", where=where, hint=did_you_mean(unknown, known))
    return replace(EvalOptions(), **given)


def plain(node: Node) -> Any:
    """A tree as plain data."""
    if isinstance(node.value, dict):
        return {name: plain(entry) for name, entry in node.fields.items()}
    return [plain(item) for item in node.items] if isinstance(node.value, list) else node.value


def _scalar(node: Node) -> Any:
    if not node.is_scalar:
        raise RequestError("this is one plain value", where=node.where, hint="Lists and mappings mean nothing here.")
    return node.value


def _words(node: Node) -> list[str]:
    items = node.items or [node]
    if not all(item.is_scalar and item.text for item in items):
        raise RequestError("this is a list of names", where=node.where, hint="Write [exact:dev.jsonl].")
    return [item.text for item in items]


def _own(node: Node) -> dict[str, list[str]]:
    if not isinstance(node.value, dict):
        raise RequestError("`own` maps experts to tasks", where=node.where, hint="Write own: {rl-rev: [rev]}.")
    return {name: _words(entry) for name, entry in node.fields.items()}


def _mapping(node: Node) -> dict[str, Any]:
    if not isinstance(node.value, dict):
        raise RequestError("`evaluate` is a mapping", where=node.where, hint="Write evaluate: {backend: vllm}.")
    return plain(node)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_READERS: dict[str, Any] = {
    "tasks": _words,
    "test": _words,
    "objective": plain,
    "own": _own,
    "evaluate": _mapping,
}
