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
WEIGHT = {"low": 0.5, "high": 2.0, "log": True}
"""Of each expert beside the others, where `lambda` is the coefficient."""

LARGEST = 4.0
"""Coefficient of an expert in the merged change: of K experts `lambda` is K times as large."""

LEAST = 0.2
"""Coefficient below which nobody looks."""

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
    """A search good enough without a file."""
    root: Node = from_value(default_recipe(base, experts, methods), "search")
    return Space(root, None, registered), read_settings(None, given)


def default_recipe(base: str, experts: Sequence[str], methods: Sequence[str] = ()) -> dict[str, Any]:
    """What is searched without a file, as plain data: the method, its coefficient and density, and a weight for each
    expert beside the others."""
    chosen = list(methods or DEFAULT_METHODS)
    names = {name for method in chosen for name in registered(method).names}
    parameters: dict[str, Any] = {}
    if "density" in names:
        parameters["density"] = DENSITY
    if "lambda" in names:
        parameters["lambda"] = {"low": LEAST, "high": LARGEST * len(experts), "log": True}
    if "normalize" in names:
        parameters["normalize"] = True
    weight = WEIGHT if "lambda" in names else {**WEIGHT, "low": LEAST, "high": LARGEST}
    weighted = {"parameters": {"weight": weight}} if "weight" in names else {}
    return {
        "merge_method": {"choices": chosen} if len(chosen) > 1 else chosen[0],
        "base_model": base,
        "models": [{"model": expert, **weighted} for expert in experts],
        "parameters": parameters,
    }
