"""Reads the lock file of a merge: its recipe again, and what the merge was made of and with.

A lock holds ``rlmerge_lock`` (the format, 1), ``recipe``, ``options``, ``inputs`` (base and experts, each with its
fingerprint), ``versions``, and by name the further inputs of methods that take some.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rlmerge import __version__
from rlmerge.errors import RequestError
from rlmerge.recipe.problems import Problems
from rlmerge.recipe.reference import ModelRef
from rlmerge.recipe.tree import Node, failure

if TYPE_CHECKING:
    from rlmerge.recipe.model import Recipe

MARK = "rlmerge_lock"
OPTIONS = ("seed", "dtype", "out_dtype", "rounding", "shard_size", "on_nonfinite")
_KEYS = (MARK, "recipe", "options", "inputs", "versions")


@dataclass(frozen=True)
class Locked:
    """What a lock fixes beside the recipe.

    ``options`` are those of ``rlmerge.Options`` that decide output bytes; ``models`` the fingerprints of base (if any)
    and experts; ``further`` those of further inputs by name.
    """

    origin: str
    options: Mapping[str, Any]
    models: tuple[str, ...]
    further: Mapping[str, tuple[str, ...]]

    def fill(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """``given`` options completed by the lock's; RequestError when one that it fixes is given another value."""
        for name, value in self.options.items():
            if name in given and given[name] != value:
                raise RequestError(
                    f"the lock fixes {name} at {value}, but {given[name]} is asked for",
                    where=self.origin,
                    hint="Leave the option out, or merge anew from the recipe that the model card shows.",
                )
        return {**given, **self.options}


def is_lock(root: Node) -> bool:
    """Whether a tree is that of a lock file."""
    return MARK in root.fields


def read_lock(root: Node, build: Callable[[Node], Recipe]) -> Recipe:
    """The recipe of a lock, as ``build`` makes it of the tree under ``recipe``, with what the lock fixes.

    Hub models are pinned to the commits that were merged. RecipeError when the lock is damaged or of another format.
    """
    top, problems = root.fields, Problems()
    if top[MARK].value != 1:
        raise failure(f"lock format {top[MARK].text} is not known", top[MARK].where, "Use the rlmerge that wrote it.")
    missing = [name for name in _KEYS if name not in top]
    if missing:
        raise failure(f"the lock lacks `{missing[0]}`", root.where, "It is damaged; copy it again.")
    options = problems.fields(top["options"], OPTIONS, "`options` of a lock")
    entries = top["inputs"].items
    models = _fingerprints(top["inputs"], problems)
    further = {name: _fingerprints(top[name], problems) for name in top if name not in _KEYS}
    version = top["versions"].fields.get("rlmerge")
    problems.raise_if_any()
    recipe = build(top["recipe"])
    if len(models) != len(recipe.experts) + (recipe.base is not None):
        raise failure("the lock does not name every model of its recipe", top["inputs"].where)
    commits = [entry.fields["revision"].value if "revision" in entry.fields else None for entry in entries]
    if recipe.base is not None:
        recipe = replace(recipe, base=_pinned(recipe.base, commits.pop(0)))
    experts = [
        replace(source, model=_pinned(source.model, commit))
        for source, commit in zip(recipe.experts, commits, strict=True)
    ]
    values = {name: node.value for name, node in options.items()}
    locked = Locked(root.where.rpartition(":")[0] or root.where, values, models, further)
    return replace(recipe, experts=tuple(experts), locked=locked, warnings=recipe.warnings + _of_version(version))


def _fingerprints(node: Node, problems: Problems) -> tuple[str, ...]:
    found: list[str] = []
    for entry in node.items:
        fingerprint = entry.fields.get("fingerprint")
        text = problems.text(fingerprint, "a fingerprint") if fingerprint else None
        found.append(text or "")
    if not found or not all(found):
        problems.add(node.where, "must list what was merged, each with its `fingerprint`")
    return tuple(found)


def _pinned(model: ModelRef, commit: object) -> ModelRef:
    return replace(model, revision=commit) if isinstance(commit, str) else model


def _of_version(node: Node | None) -> tuple[str, ...]:
    if node is None or node.text == __version__:
        return ()
    return (f"the lock was written by rlmerge {node.text}; this is {__version__}, whose bytes may differ",)
