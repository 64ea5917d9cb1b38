"""Where a search comes from: a search file, or base and experts alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rlmerge.errors import RequestError
from rlmerge.recipe.load import Source, read_documents, registered
from rlmerge.recipe.tree import Node, from_value

from .settings import Settings, read_settings
from .space import Space

SECTION = "tune"
"""The key of a search file beside those of its recipe."""

DEFAULT_METHODS = ("task_arithmetic", "ties")
WEIGHT = {"low": 0.2, "high": 1.5}
DENSITY = {"low": 0.1, "high": 1.0}


def read_search(source: Source, given: Mapping[str, Any]) -> tuple[Space, Settings]:
    """Space and settings of a search file, YAML text or mapping; ``given`` stands over what its ``tune:`` says."""
    origin, found = read_documents(source)
    if len(found) != 1:
        hint = "A search is one recipe; merge the named ones of a file first."
        raise RequestError(f"holds {len(found)} recipes", where=origin or "search", hint=hint)
    (root,) = found
    if not isinstance(root.value, dict):
        hint = "Write a recipe in which values are ranges, and `tune:` beside it."
        raise RequestError("is no recipe", where=origin or "search", hint=hint)
    recipe = replace(root, value={name: entry for name, entry in root.fields.items() if name != SECTION})
    settings = read_settings(root.fields.get(SECTION), given)
    return Space(recipe, origin, registered), settings


def default_search(
    base: str, experts: Sequence[str], methods: Sequence[str], given: Mapping[str, Any]
) -> tuple[Space, Settings]:
    """A search good enough without a file: a weight for each expert, the method, and its density."""
    chosen = list(methods or DEFAULT_METHODS)
    parameters: dict[str, Any] = {}
    names = {name for method in chosen for name in registered(method).names}
    if "density" in names:
        parameters["density"] = DENSITY
    if "normalize" in names:
        parameters["normalize"] = False
    weighted = {"parameters": {"weight": WEIGHT}} if "weight" in names else {}
    root: Node = from_value(
        {
            "merge_method": {"choices": chosen} if len(chosen) > 1 else chosen[0],
            "base_model": base,
            "models": [{"model": expert, **weighted} for expert in experts],
            "parameters": parameters,
        },
        "search",
    )
    return Space(root, None, registered), read_settings(None, given)
