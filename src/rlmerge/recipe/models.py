"""Reads which models take part: `models`, or one `slices` entry that spans whole models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rlmerge.methods.method import Method
from rlmerge.recipe.problems import Problems
from rlmerge.recipe.reference import ModelRef, read_model
from rlmerge.recipe.tree import Node

_WHOLE_ONLY = "This version merges whole models: list them under `models`."


@dataclass(frozen=True, slots=True)
class Entry:
    """One listed model, its own parameters still unread, and the directories of its further inputs by name."""

    model: ModelRef
    parameters: Node | None
    node: Node
    inputs: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Listing:
    """The listed models; with ``slices``, also the layer count they claim and what the slice sets for all of them."""

    entries: tuple[Entry, ...] = ()
    depth: int | None = None
    base: Node | None = None
    parameters: Node | None = None


def read_listing(top: dict[str, Node], root: Node, method: Method | None, problems: Problems) -> Listing:
    """The models of a recipe; reports none, several ways at once, and layouts this version does not run."""
    forms = [name for name in ("models", "slices", "modules") if name in top]
    if len(forms) > 1:
        problems.add(top[forms[1]].where, f"a recipe lists its models once: `{forms[0]}` or `{forms[1]}`, not both")
    elif not forms:
        problems.add(root.where, "the recipe lists no models", "Add `models:` with one `- model:` per expert.")
    elif forms == ["modules"]:
        problems.add(top["modules"].where, "`modules` is not supported yet", _WHOLE_ONLY)
    elif forms == ["slices"]:
        return _read_slices(top["slices"], method, problems)
    else:
        return Listing(_read_entries(top["models"], "models", (), method, problems))
    return Listing()


def _read_entries(
    node: Node, owner: str, extra: tuple[str, ...], method: Method | None, problems: Problems
) -> tuple[Entry, ...]:
    if not isinstance(node.value, list):
        problems.add(node.where, f"`{owner}` must be a list of `- model:` entries")
        return ()
    if not node.value:
        problems.add(node.where, f"`{owner}` lists no model", "Add one `- model:` entry per expert.")
    entries: list[Entry] = []
    for item in node.value:
        if item.is_scalar and item.text:
            item = Node({"model": item}, item.where, item.line)
        names, inputs = (method.names, method.inputs) if method else ((), ())
        fields = problems.fields(item, ("model", *inputs, *extra, "parameters"), f"a `{owner}` entry", names)
        if "model" in fields:
            model = read_model(fields["model"], problems)
            found = {name: problems.text(fields[name], f"`{name}`") for name in inputs if name in fields}
            if model:
                given = {name: text for name, text in found.items() if text}
                entries.append(Entry(model, fields.get("parameters"), item, given))
        elif isinstance(item.value, dict):
            problems.add(item.where, f"a `{owner}` entry needs a `model`")
    return tuple(entries)


def _read_slices(node: Node, method: Method | None, problems: Problems) -> Listing:
    if not node.items:
        problems.add(node.where, "`slices` must be a list with one entry")
        return Listing()
    if len(node.items) > 1:
        problems.add(node.items[1].where, "stacking several slices is not supported yet", _WHOLE_ONLY)
        return Listing()
    names = method.names if method else ()
    fields = problems.fields(node.items[0], ("sources", "base_model", "parameters"), "a slice", names)
    if "sources" not in fields:
        problems.add(node.items[0].where, "a slice needs `sources`")
        return Listing()
    entries = _read_entries(fields["sources"], "sources", ("layer_range",), method, problems)
    ranges = [entry.node.fields.get("layer_range") for entry in entries]
    ends = [_whole_range(each, problems) for each in ranges if each is not None]
    if ends and (len(ends) < len(ranges) or len(set(ends)) > 1):
        problems.add(fields["sources"].where, "all sources of a slice must have the same `layer_range`", _WHOLE_ONLY)
    return Listing(entries, ends[0] if ends else None, fields.get("base_model"), fields.get("parameters"))


def _whole_range(node: Node, problems: Problems) -> int | None:
    """N of ``[0, N]``; reports everything else."""
    bounds = [item.value for item in node.items]
    if len(bounds) != 2 or any(isinstance(b, bool) or not isinstance(b, int) or b < 0 for b in bounds):
        problems.add(node.where, "`layer_range` must be two layer numbers, like [0, 32]")
        return None
    start, stop = bounds
    if start != 0 or not isinstance(stop, int) or stop == 0:
        problems.add(node.where, "a slice of some layers only is not supported yet", _WHOLE_ONLY)
        return None
    return stop


def as_experts(
    entries: tuple[Entry, ...], base: ModelRef | None, method: Method, problems: Problems
) -> tuple[Entry, ...]:
    """The listed models that enter the formula: all but the base, unless the method has no use for a base."""
    seen: set[str] = set()
    for entry in entries:
        if entry.model.identity in seen:
            problems.warn(entry.node.where, f"model '{entry.model}' is listed twice and counts twice")
        seen.add(entry.model.identity)
    if base is None or method.base == "ignored":
        return entries
    for entry in entries:
        if entry.model.identity == base.identity and entry.parameters and entry.parameters.fields:
            problems.warn(entry.parameters.where, f"parameters of the base '{base}' are ignored: it has no task vector")
        if entry.model.identity == base.identity and entry.inputs:
            what = f"the {' and '.join(entry.inputs)} of the base '{base}' is ignored: it is not merged"
            problems.warn(entry.node.where, what)
    return tuple(entry for entry in entries if entry.model.identity != base.identity)


def check_count(method: Method, base: ModelRef | None, experts: int, where: str, problems: Problems) -> None:
    """Report a number of experts, or the lack of a base, that the method cannot work with."""
    if method.base == "required" and base is None:
        problems.add(where, f"method '{method.name}' needs a base model", "Add `base_model:` (in a shell: --base).")
        return
    least, most = method.min_experts, method.max_experts
    if experts < least:
        bound = f"at least {least}" if least != most else f"exactly {least}"
    elif most is not None and experts > most:
        bound = f"at most {most}" if least != most else f"exactly {most}"
    else:
        return
    beside = " besides the base" if base is not None and method.base != "ignored" else ""
    problems.add(where, f"method '{method.name}' takes {bound} model(s){beside}, not {experts}")


def check_inputs(method: Method, entries: tuple[Entry, ...], problems: Problems) -> None:
    """Report the experts that lack a further input that another expert has."""
    for name in method.inputs:
        without = [entry for entry in entries if name not in entry.inputs]
        if len(without) < len(entries):
            for entry in without:
                hint = f"Give every model its `{name}:`, or none."
                problems.add(entry.node.where, f"'{entry.model}' has no `{name}`, but another model has one", hint)
