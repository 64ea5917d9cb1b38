"""Reads the lock file of a merge: its recipe again, and what the merge was made of and with.

A lock holds ``rlmerge_lock`` (the format, 1), ``recipe`` (or the list of a file's recipes, the result last),
``options``, ``inputs`` (the models in the order of ``Recipe.models``, each with its fingerprint), ``versions``, and by
name the further inputs of methods that take some.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rlmerge import __version__
from rlmerge.errors import RequestError
from rlmerge.frozen import frozen
from rlmerge.recipe.problems import Problems
from rlmerge.recipe.reference import ModelRef, existing
from rlmerge.recipe.tree import Node, failure
from rlmerge.recipe.words import printable

if TYPE_CHECKING:
    from rlmerge.recipe.model import Recipe

MARK = "rlmerge_lock"
OPTIONS = ("seed", "dtype", "out_dtype", "rounding", "shard_size", "on_nonfinite")
_KEYS = (MARK, "recipe", "options", "inputs", "versions")
_DIGESTS = ("contents", "files")
"""Digests by name that locks of earlier versions lack."""


@frozen
class Locked:
    """What a lock fixes beside the recipe.

    ``options`` are those of ``rlmerge.Options`` that decide output bytes; ``models`` the fingerprints of the recipe's
    models in the order of ``Recipe.models``; ``further`` those of further inputs by name. ``contents`` are digests of
    all that was read of base and experts, ``files`` of the files beside the weights; None in locks without them.
    """

    origin: str
    options: Mapping[str, Any]
    models: tuple[str, ...]
    further: Mapping[str, tuple[str, ...]]
    contents: Mapping[str, str] | None = None
    files: Mapping[str, str] | None = None

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


def read_lock(root: Node, build: Callable[[Sequence[Node]], tuple[Recipe, ...]]) -> tuple[Recipe, ...]:
    """The recipes of a lock, as ``build`` makes them of the trees under ``recipe``, with what the lock fixes.

    Hub models are pinned to the commits that were merged. RecipeError when the lock is damaged or of another format.
    """
    top, problems = root.fields, Problems()
    if top[MARK].value != 1 or top[MARK].value is True:
        text = printable(top[MARK].text, 40)
        raise failure(f"lock format {text} is not known", top[MARK].where, "Use the rlmerge that wrote it.")
    missing = [name for name in _KEYS if name not in top]
    if missing:
        raise failure(f"the lock lacks `{missing[0]}`", root.where, "It is damaged; copy it again.")
    options = _read_options(top["options"], problems)
    inputs = _read_inputs(top["inputs"], problems)
    further = {name: _read_inputs(top[name], problems) for name in top if name not in (*_KEYS, *_DIGESTS)}
    digests = {name: _read_digests(top[name], problems) for name in _DIGESTS if name in top}
    problems.raise_if_any()
    recipes = build(top["recipe"].items or [top["recipe"]])
    models = list(dict.fromkeys(m.identity for recipe in recipes for m in recipe.models if not m.stage))
    if len(models) != len(inputs):
        inputs = list(dict.fromkeys(inputs))  # a model that is listed twice may be noted twice
    if len(models) != len(inputs):
        raise failure("the lock does not name every model of its recipe", top["inputs"].where)
    by_identity = dict(zip(models, inputs, strict=True))

    def pinned(model: ModelRef) -> ModelRef:
        found = by_identity.get(model.identity)
        if found is None:
            return model
        adapter = model.adapter
        if adapter and found.adapter_revision and existing(adapter.reference) is None:
            adapter = replace(adapter, revision=found.adapter_revision)
        # A directory of the Hub's cache has a revision, but no other one can be asked of it.
        own = found.revision if existing(model.reference) is None else None
        return replace(model, revision=own or model.revision, adapter=adapter)

    origin = root.where.rpartition(":")[0] or root.where
    warnings = _of_version(top["versions"].fields.get("rlmerge"))
    named = {name: tuple(each.fingerprint for each in found) for name, found in further.items()}
    return tuple(
        replace(
            recipe.map_models(pinned),
            locked=Locked(
                origin,
                options,
                tuple(by_identity[m.identity].fingerprint for m in recipe.models if not m.stage),
                named if recipe is recipes[-1] else {},
                **(digests if recipe is recipes[-1] else {}),
            ),
            warnings=recipe.warnings + warnings,
        )
        for recipe in recipes
    )


def _read_options(node: Node, problems: Problems) -> dict[str, Any]:
    """The options, each of its type; null is what was not given."""
    fields = problems.fields(node, OPTIONS, "`options` of a lock")
    found: dict[str, Any] = {}
    for name, entry in fields.items():
        owner = f"`{name}` of a lock"
        if name == "seed":
            found[name] = problems.whole(entry, owner, 0, 2**64 - 1)
        elif name == "shard_size":
            found[name] = problems.whole(entry, owner, 1, 2**62)
        elif name == "rounding":
            found[name] = problems.choice(entry, ("nearest", "stochastic"), owner)
        elif name == "on_nonfinite":
            found[name] = problems.choice(entry, ("error", "keep", "zero"), owner)
        elif entry.value is not None:
            found[name] = problems.choice(entry, ("bfloat16", "float16", "float32", "float64"), owner)
        else:
            found[name] = None
    return found


@frozen(slots=True)
class _Input:
    """A model or directory that was merged: its name, commit and fingerprint, and the commit of its adapter."""

    name: str
    revision: str | None
    fingerprint: str
    adapter_revision: str | None


def _read_inputs(node: Node, problems: Problems) -> list[_Input]:
    found = [_read_input(entry, problems) for entry in node.items]
    if not found or not all(found):
        problems.add(node.where, "must list what was merged, each with its `fingerprint`")
    return [each for each in found if each]


def _read_digests(node: Node, problems: Problems) -> dict[str, str]:
    if not isinstance(node.value, dict):
        problems.add(node.where, "must map names to digests")
    return {name: entry.text for name, entry in node.fields.items()}


def _read_input(node: Node, problems: Problems) -> _Input | None:
    fields = node.fields
    if "fingerprint" not in fields:
        return None
    name = fields.get("model") or fields.get("directory")
    adapter = fields["adapter"].fields if "adapter" in fields else {}
    fingerprint = problems.text(fields["fingerprint"], "a fingerprint")
    commits = _commit(fields, problems), _commit(adapter, problems)
    return _Input(name.text if name else "", commits[0], fingerprint or "?", commits[1])


def _commit(fields: Mapping[str, Node], problems: Problems) -> str | None:
    node = fields.get("revision")
    return problems.text(node, "a revision") if node and node.value is not None else None


def _of_version(node: Node | None) -> tuple[str, ...]:
    if node is None or node.text == __version__:
        return ()
    written = printable(node.text, 40)
    return (f"the lock was written by rlmerge {written}; this is {__version__}, whose bytes may differ",)
