"""Where recipes come from: a file, text, or Python data."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, cast

from rlmerge.errors import RequestError
from rlmerge.methods.method import Method
from rlmerge.recipe.lock import is_lock, read_lock
from rlmerge.recipe.model import Recipe
from rlmerge.recipe.parse import Lookup, build
from rlmerge.recipe.read import read_text
from rlmerge.recipe.stages import build_stages
from rlmerge.recipe.tree import Node, failure, from_value
from rlmerge.recipe.words import printable
from rlmerge.recipe.yaml_text import documents

Source = str | Path | Mapping[str, Any] | Sequence[Mapping[str, Any]]


def load_recipes(source: Source, *, lookup: Lookup | None = None) -> tuple[Recipe, ...]:
    """Read and check the recipes of a file, or those in a lock file, in the order in which they run; the last makes the
    result.

    ``source`` is a YAML file, YAML text (a str with a line break or brace), a mapping, or a list of mappings. Where it
    holds several, each but the result has a ``name``, which the others use like a model's.

    ``lookup(name) -> Method`` finds a method; by default it is rlmerge's registry. RecipeError carries every problem at
    once, each with its line; RequestError says that there is no such file.
    """
    origin, found = read_documents(source)
    return build_documents(found, origin, lookup or registered)


def build_documents(found: Sequence[Node], origin: str | None, lookup: Lookup) -> tuple[Recipe, ...]:
    """The recipes of the documents of a file, which may be those of a lock."""
    if not found:
        raise failure("recipe is empty", origin or "recipe", "It needs at least `merge_method` and `models`.")

    def one(node: Node, stages: Collection[str]) -> Recipe:
        return build(node, origin, lookup, stages=stages)

    if len(found) == 1 and is_lock(found[0]):
        return read_lock(found[0], lambda nodes: build_stages(nodes, one))
    return build_stages(found, one)


def load_recipe(source: Source, *, lookup: Lookup | None = None) -> Recipe:
    """As ``load_recipes`` of a source that holds one recipe; RequestError where it holds several."""
    return only(load_recipes(source, lookup=lookup))


def only(recipes: tuple[Recipe, ...]) -> Recipe:
    """The one recipe there is; RequestError where it needs others before it."""
    if len(recipes) != 1:
        names = ", ".join(printable(f"'{recipe.name}'", 60) for recipe in recipes[:-1][:5])
        raise RequestError(
            f"this holds {len(recipes)} recipes, and the result needs those before it: {names}",
            where=recipes[-1].origin or "recipe",
            hint="Here one recipe is needed: merge the named ones first, and write their directories in the last.",
        )
    return recipes[0]


def read_documents(source: object) -> tuple[str | None, list[Node]]:
    """The file that is read, if one is, and its documents."""
    if isinstance(source, Mapping):
        return None, [from_value(cast("Mapping[str, Any]", source))]
    if isinstance(source, str) and ("\n" in source or source.lstrip().startswith("{")):
        return None, documents(source, "recipe")
    if isinstance(source, str | PathLike):
        path = Path(cast("str | PathLike[str]", source))
        return printable(str(path)), documents(read_text(path), printable(str(path)))
    if isinstance(source, list | tuple):
        return None, [from_value(each, f"recipe[{index}]") for index, each in enumerate(cast("list[object]", source))]
    what = f"a recipe is a file, YAML text or a mapping, not a {type(source).__name__}"
    raise RequestError(what)


def registered(name: str) -> Method:
    """rlmerge's own registry, imported when first asked."""
    from rlmerge.methods import get

    return get(name)
