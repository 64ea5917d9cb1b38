"""What a search is asked for: the ``tune:`` section of a search file, and what the command line says over it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, fields, replace
from typing import Any

from rlmerge.calibration.options import CalibrationOptions
from rlmerge.errors import RequestError, did_you_mean
from rlmerge.frozen import frozen
from rlmerge.recipe.tree import Node

from .objectives import Objective, read_objective
from .scoring import EvalOptions

_DIVERGENCE = CalibrationOptions(held_out=0)

DIVERGENCE = (
    "sequences",
    "responses",
    "samples",
    "max_length",
    "max_new_tokens",
    "top",
    "batch_size",
    "dtype",
    "device",
)
"""What may be said of how ``proxy:kl`` is taken: options of ``rlmerge calibrate``."""

SAMPLERS = ("auto", "tpe", "cmaes", "nsga2", "random")


@frozen(slots=True, kw_only=True)
class Settings:
    """A search beside its space.

    ``tasks`` are those of ``rlmerge eval``, on items to choose by; ``test`` are others, on items that no choice has
    seen. ``trials`` and ``hours`` are the budget, whichever ends first; the hours are those of one call. ``round`` is
    how many candidates are merged in one read of the models. ``limit`` is the items of each task, ``test_limit`` those
    of each test task. ``prune`` stops the worse half of a round on the first quarter, then half, of the items. ``own``
    gives the tasks each expert was trained for. ``memory`` is what candidates may hold in memory, in bytes; beyond it
    they are written to disk. ``prompts`` are data by expert for ``proxy:kl``, and ``divergence`` says how it is taken.
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
    prompts: Mapping[str, str] | None = None
    divergence: CalibrationOptions = _DIVERGENCE

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
        prompts: object = self.prompts
        if prompts is not None and not _are_words(prompts):
            hint = "Write prompts: {rl-rev: rev.jsonl}."
            raise RequestError(f"prompts map each expert to its data, and are not {prompts!r}", hint=hint)
        if self.needs_prompts and not self.prompts:
            hint = "Add --prompts EXPERT=FILE.jsonl for each; a few dozen unlabelled prompts are enough."
            raise RequestError("'proxy:kl' needs prompts of each expert", where="objective", hint=hint)
        shared = next((task for task in self.test if task in self.tasks), None)
        if shared is not None:
            hint = "Confirm the winner on items that did not choose it."
            raise RequestError(f"'{shared}' is both what the search chooses by and its test", hint=hint)

    @property
    def needs_prompts(self) -> bool:
        """Whether an objective compares what experts and merge say."""
        return any(objective.needs_prompts for objective in self.objectives)

    @property
    def needs_account(self) -> bool:
        """Whether an objective is what merges say of themselves."""
        return any(objective.needs_account for objective in self.objectives)

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
    if "divergence" in found:
        found["divergence"] = _divergence(found["divergence"], node)
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


def _divergence(given: Any, node: Node | None) -> CalibrationOptions:
    where = node.fields["divergence"].where if node and "divergence" in node.fields else None
    if not isinstance(given, Mapping):
        hint = "Write divergence: {sequences: 32}."
        raise RequestError(f"divergence is a mapping, not {given!r}", where=where, hint=hint)
    for name, value in given.items():
        if name not in DIVERGENCE:
            raise RequestError(f"`divergence` has no '{name}'", where=where, hint=did_you_mean(name, DIVERGENCE))
        kind = type(getattr(_DIVERGENCE, name))
        if type(value) is not kind:
            what = f"{name} must be {'a whole number' if kind is int else 'a word'}, not {value!r}"
            raise RequestError(what, where=where, hint="Its values are those of `rlmerge calibrate`.")
    try:
        return replace(_DIVERGENCE, **given)
    except RequestError as error:
        raise RequestError(error.what, where=where, hint=error.hint) from None


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


def _mapping(example: str) -> Callable[[Node], dict[str, Any]]:
    name = example.partition(":")[0]

    def read(node: Node) -> dict[str, Any]:
        if not isinstance(node.value, dict):
            raise RequestError(f"`{name}` is a mapping", where=node.where, hint=f"Write {example}.")
        return plain(node)

    return read


def _prompts(node: Node) -> dict[str, str]:
    found = _mapping("prompts: {rl-rev: rev.jsonl}")(node)
    for name, entry in node.fields.items():
        if not isinstance(found[name], str) or not found[name]:
            hint = "Write FILE.jsonl, FILE.jsonl:TASK, a text file, or reasoning-gym:TASK."
            raise RequestError(f"the prompts of '{name}' are no file", where=entry.where, hint=hint)
    return found


def _are_words(value: object) -> bool:
    if not isinstance(value, Mapping):
        return False
    found: Mapping[object, object] = value
    return all(isinstance(each, str) and each for pair in found.items() for each in pair)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_READERS: dict[str, Any] = {
    "tasks": _words,
    "test": _words,
    "objective": plain,
    "own": _own,
    "evaluate": _mapping("evaluate: {backend: vllm}"),
    "prompts": _prompts,
    "divergence": _mapping("divergence: {sequences: 32}"),
}
