"""What becomes of a mergekit recipe here: line by line, and as a recipe in which every value is written down."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from rlmerge.errors import RequestError
from rlmerge.frozen import frozen
from rlmerge.methods.method import Method, Parameter
from rlmerge.recipe.canonical import to_yaml_documents
from rlmerge.recipe.differences import Finding, differences
from rlmerge.recipe.layout import Slice
from rlmerge.recipe.load import build_documents, registered
from rlmerge.recipe.lock import is_lock
from rlmerge.recipe.model import Recipe
from rlmerge.recipe.parameters import Settings, default_value
from rlmerge.recipe.parse import Lookup
from rlmerge.recipe.read import read_text
from rlmerge.recipe.setting import Setting
from rlmerge.recipe.tree import Node
from rlmerge.recipe.words import printable
from rlmerge.recipe.yaml_text import documents

Verdict = Literal["same", "differs", "no effect"]

_PLACE = re.compile(r":([0-9]+): ")
_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
"""What ends a line in YAML 1.1."""


@frozen(slots=True)
class Line:
    """One line of a recipe: its number, its text, whether it means here what it means in mergekit, and why not."""

    number: int
    text: str
    verdict: Verdict
    why: tuple[str, ...]


@frozen(slots=True)
class Migration:
    """A recipe explained: its lines, what belongs to none of them, and ``text``, the recipe with every value."""

    lines: tuple[Line, ...]
    remarks: tuple[str, ...]
    text: str


def migrate(path: Path, *, compat: bool = False, lookup: Lookup | None = None) -> Migration:
    """Explain the recipe file at ``path``; with ``compat`` as if it said ``compat: mergekit``.

    RecipeError and RequestError as when it is read to be merged; RequestError for a lock.
    """
    text, origin = read_text(path), printable(str(path))
    roots = documents(text, origin)
    if any(is_lock(root) for root in roots):
        raise RequestError("a lock says everything already", where=origin, hint="Give the recipe it was made from.")
    if compat:
        roots = [_compatible(root) for root in roots]
    recipes = build_documents(roots, origin, lookup or registered)
    by_name = {recipe.name: recipe for recipe in recipes}
    findings = [found for root in roots for found in differences(by_name[_name(root)], root)]
    findings += [_of_warning(warning) for recipe in recipes for warning in recipe.warnings]
    said: defaultdict[int | None, list[Finding]] = defaultdict(list)
    for finding in findings:
        said[finding.line].append(finding)
    lines = tuple(
        _line(number, line, said[number])
        for number, line in enumerate(_BREAK.split(text.removeprefix("\ufeff")), 1)
        if line.strip() and not line.lstrip().startswith("#")
    )
    remarks = tuple(finding.why for finding in said[None])
    return Migration(lines, remarks, to_yaml_documents([explicit(recipe) for recipe in recipes]))


def explicit(recipe: Recipe) -> Recipe:
    """The same recipe with every value that is in force by default written down."""
    plain = [part for module, part in recipe.slices if not module.method]
    levels = [(module.parameters, part) for module, part in recipe.slices if not module.method]
    modules = [
        replace(m, parameters=_filled(m.method, recipe.compat, m.parameters, [({}, part) for part in m.slices]))
        if m.method
        else m
        for m in recipe.modules
    ]
    filled = _filled(recipe.method, recipe.compat, recipe.parameters, levels) if plain else recipe.parameters
    return replace(recipe, parameters=filled, modules=tuple(modules))


def _filled(method: Method, compat: bool, settings: Settings, below: Sequence[tuple[Settings, Slice]]) -> Settings:
    """``settings`` of one level with every default that is in force for some of the slices ``below`` it."""
    filled: dict[str, Setting] = {}
    for parameter in method.parameters:
        given = settings.get(parameter.name)
        default = default_value(method, parameter, compat)
        if default is not None and (given is not None or not _is_given(below, parameter)):
            constant = Setting.constant(default)
            filled[parameter.name] = given.otherwise(constant) if given else constant
        elif given is not None:
            filled[parameter.name] = given
    return filled


def _is_given(below: Sequence[tuple[Settings, Slice]], parameter: Parameter) -> bool:
    """Whether modules, slices or models leave no case in which the level above them would be asked."""

    def covered(*levels: object) -> bool:
        return any(isinstance(each, Setting) and each.covers_all for each in levels)

    name, own = parameter.name, parameter.per == "expert" and not parameter.is_static
    return all(
        covered(part.parameters.get(name), own_level.get(name))
        or (own and bool(part.sources) and all(covered(source.parameters.get(name)) for source in part.sources))
        for own_level, part in below
    )


def _compatible(root: Node) -> Node:
    return replace(root, value={**root.fields, "compat": Node("mergekit", "--compat", text="mergekit")})


def _name(root: Node) -> str | None:
    node = root.fields.get("name")
    return node.text.strip() if node and node.value is not None else None


def _line(number: int, text: str, said: Sequence[Finding]) -> Line:
    kinds = {finding.kind for finding in said}
    verdict = "differs" if "differs" in kinds else "no effect" if "no effect" in kinds else "same"
    return Line(number, printable(text.rstrip()), verdict, tuple(dict.fromkeys(finding.why for finding in said)))


def _of_warning(warning: str) -> Finding:
    place = _PLACE.search(warning)
    why = warning[place.end() :] if place else warning
    if "as mergekit does" in why:
        return Finding(int(place[1]) if place else None, "same", why)
    kind = "no effect" if "ignored" in why or "no effect" in why.lower() else "differs"
    return Finding(int(place[1]) if place else None, kind, why)
