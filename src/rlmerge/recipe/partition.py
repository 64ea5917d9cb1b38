"""Who is base and who is expert among the models of a slice, and whether the method can work with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field

from rlmerge.frozen import frozen
from rlmerge.methods.method import Method
from rlmerge.recipe.layout import Range, Slice, SliceSource
from rlmerge.recipe.parameters import Settings, read_own_settings, value_in_force
from rlmerge.recipe.problems import Problems
from rlmerge.recipe.reference import ModelRef
from rlmerge.recipe.tree import Node


@frozen(slots=True)
class Entry:
    """One listed model, its own parameters still unread."""

    model: ModelRef
    identity: str
    node: Node
    layer_range: Range | None = None
    inputs: Mapping[str, str] = field(default_factory=dict[str, str])
    is_implied: bool = False


@frozen(slots=True)
class Base:
    """The base of a slice, and the key that names it."""

    model: ModelRef
    identity: str
    node: Node


@frozen(slots=True)
class Scope:
    """What holds for the models of a slice from above.

    ``levels`` are the parameters of slice, module and recipe. ``appends`` says that a base that is not listed takes its
    part all the same, as in the ``models`` form; ``averages``, that it does so even in a method that has no base.
    ``copies`` says that a slice of the base alone is meant, not forgotten.
    """

    method: Method
    base: Base | None
    levels: tuple[Settings, ...]
    appends: bool
    averages: bool
    copies: bool


def make_slice(entries: Sequence[Entry], scope: Scope, node: Node, problems: Problems) -> Slice:
    """The slice of the models listed at ``node``; reports everything that can be judged without opening them."""
    method, base = scope.method, scope.base
    listed = next((entry for entry in entries if base and entry.identity == base.identity), None)
    if base is None or method.base == "ignored":
        experts = list(entries)
        if base and not listed and _averages_base(scope, problems):
            experts.append(Entry(base.model, base.identity, base.node, is_implied=True))
        compared = base is not None and (scope.appends or listed is not None)
    else:
        key = (base.identity, _range(listed))
        same = [entry for entry in entries if (entry.identity, entry.layer_range) == key]
        experts = [entry for entry in entries if (entry.identity, entry.layer_range) != key]
        _warn_of_base(base, same, problems)
        compared = True
    _check_repeats(experts, problems)
    if base and listed is None and method.base != "ignored" and not scope.appends:
        what = f"method '{method.name}' needs the base '{base.model}' among the sources of each slice"
        problems.add(node.where, what, "Add it with the `layer_range` that the others are compared with.")
    else:
        _check_count(scope, len(experts), node, problems)
    _check_inputs(method, experts, problems)
    sources = tuple(_source(entry, scope, problems) for entry in experts)
    _check_missing(scope, sources, node, problems)
    return Slice(sources, base.model if base and compared else None, _range(listed), scope.levels[0], node.line)


def _range(entry: Entry | None) -> Range | None:
    return entry.layer_range if entry else None


def _source(entry: Entry, scope: Scope, problems: Problems) -> SliceSource:
    method, lenient = scope.method, problems.lenient
    own = read_own_settings(
        entry.node.fields.get("parameters"),
        method,
        lambda parameter: value_in_force(method, parameter, lenient, scope.levels),
        problems,
    )
    return SliceSource(entry.model, entry.layer_range, own, entry.inputs, entry.node.line, entry.is_implied)


def _averages_base(scope: Scope, problems: Problems) -> bool:
    """Whether a base that is not listed is averaged in, as in mergekit; there, it needs every value of the others."""
    method, base = scope.method, scope.base
    if base is None or not scope.appends or method.max_experts == 1:
        return False
    if scope.averages and gives_every_value(method, scope.levels):
        what = f"'{method.name}' averages the base in, as mergekit does, although it is not among the listed models"
        problems.warn(base.node.where, what)
        return True
    problems.warn(base.node.where, f"'{method.name}' averages only the listed models; the base is not among them")
    return False


def gives_every_value(method: Method, levels: Sequence[Settings]) -> bool:
    """Whether each parameter per expert has a value, for every tensor, for a model of which nothing is said."""
    needed = [parameter.name for parameter in method.parameters if parameter.per == "expert"]
    return all(any(name in level and level[name].covers_all for level in levels) for name in needed)


def _warn_of_base(base: Base, same: Sequence[Entry], problems: Problems) -> None:
    """Report what is given in vain for a base, which is listed here."""
    for entry in same:
        parameters = entry.node.fields.get("parameters")
        if parameters and parameters.fields:
            what = f"parameters of the base '{base.model}' are ignored: it has no task vector"
            problems.warn(parameters.where, what)
        if entry.inputs:
            what = f"the {' and '.join(entry.inputs)} of the base '{base.model}' is ignored: it is not merged"
            problems.warn(entry.node.where, what)


def _check_repeats(experts: Sequence[Entry], problems: Problems) -> None:
    """Warn of one model listed twice with the same layers; different layers of one model are a way to merge it."""
    seen: set[tuple[str, Range | None]] = set()
    for entry in experts:
        if (entry.identity, entry.layer_range) in seen:
            problems.warn(entry.node.where, f"model '{entry.model}' is listed twice and counts twice")
        seen.add((entry.identity, entry.layer_range))


def _check_count(scope: Scope, experts: int, node: Node, problems: Problems) -> None:
    """Report a number of experts, or the lack of a base, that the method cannot work with."""
    method, base = scope.method, scope.base
    if method.base == "required" and base is None:
        what = f"method '{method.name}' needs a base model"
        problems.add(node.where, what, "Add `base_model:` (in a shell: --base).")
        return
    least, most = method.min_experts, method.max_experts
    if experts < least:
        if experts == 0 and base and scope.copies and least == 1 and most is None:
            problems.warn(node.where, f"only the base '{base.model}' is listed: its tensors are copied")
            return
        bound = f"at least {least}" if least != most else f"exactly {least}"
    elif most is not None and experts > most:
        bound = f"at most {most}" if least != most else f"exactly {most}"
    else:
        return
    beside = " besides the base" if base is not None and method.base != "ignored" else ""
    problems.add(node.where, f"method '{method.name}' takes {bound} model(s){beside}, not {experts}")


def _check_inputs(method: Method, experts: Sequence[Entry], problems: Problems) -> None:
    """Report the experts that lack a further input that another expert has."""
    for name in method.inputs:
        without = [entry for entry in experts if name not in entry.inputs]
        if len(without) < len(experts):
            for entry in without:
                hint = f"Give every model its `{name}:`, or none."
                problems.add(entry.node.where, f"'{entry.model}' has no `{name}`, but another model has one", hint)


def _check_missing(scope: Scope, sources: Sequence[SliceSource], node: Node, problems: Problems) -> None:
    """Report the parameters without a default that the recipe leaves open for some expert."""
    for parameter in scope.method.parameters:
        if value_in_force(scope.method, parameter, problems.lenient, scope.levels) is not None:
            continue
        if parameter.per == "tensor" or any(parameter.name not in source.parameters for source in sources):
            what = f"method '{scope.method.name}' needs parameter '{parameter.name}'"
            problems.add(node.where, what, parameter.help)
