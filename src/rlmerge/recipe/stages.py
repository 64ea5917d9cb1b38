"""The recipes of one file: which names the result of which, and in what order they run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from rlmerge.errors import RecipeError, RequestError
from rlmerge.recipe.model import Recipe
from rlmerge.recipe.problems import Problems
from rlmerge.recipe.tree import Node

BuildOne = Callable[[Node, Collection[str]], Recipe]
"""Builds the recipe of a document; the names are those of the file's other recipes."""

MAX_STAGES = 100
"""Most recipes of a file."""


def build_stages(documents: Sequence[Node], build: BuildOne) -> tuple[Recipe, ...]:
    """The recipes of a file in the order in which they run; the last makes the result.

    A recipe without a name is the result, or, where all have one, the only one that no other uses. RecipeError with the
    problems of all of them, and with names that are given twice, recipes that wait for each other, and no one result.
    """
    if len(documents) == 1:
        return (build(documents[0], ()),)
    problems = Problems()
    if len(documents) > MAX_STAGES:
        problems.add(documents[MAX_STAGES].where, f"a file holds at most {MAX_STAGES} recipes, not {len(documents)}")
        problems.raise_if_any()
    names = _names(documents, problems)
    stages = {name for name in names if name}
    recipes: list[Recipe] = []
    found: list[RequestError] = []
    for document in documents:
        try:
            recipes.append(build(document, stages))
        except RecipeError as error:
            found += error.problems
    if found or len(problems):
        raise RecipeError([*problems.errors, *found])
    places = [document.where for document in documents]
    ordered = _ordered(recipes, places, problems)
    problems.raise_if_any()
    return ordered


def _ordered(recipes: Sequence[Recipe], places: Sequence[str], problems: Problems) -> tuple[Recipe, ...]:
    """Every recipe after those it uses, otherwise as written, the result last."""
    number = {recipe.name: index for index, recipe in enumerate(recipes)}
    uses = [[number[model.reference] for model in recipe.models if model.stage] for recipe in recipes]
    used = {other for each in uses for other in each}
    order: list[int] = []
    waiting: list[int] = []

    def visit(index: int) -> None:
        if index in waiting:
            ring = [*waiting[waiting.index(index) :], index]
            names = " -> ".join(f"'{recipes[each].name}'" for each in ring)
            problems.add(places[index], f"these recipes wait for each other: {names}")
        elif index not in order:
            waiting.append(index)
            for other in uses[index]:
                visit(other)
            waiting.pop()
            order.append(index)

    for index in range(len(recipes)):
        visit(index)
    results = [index for index in range(len(recipes)) if index not in used]
    final = next((index for index in results if recipes[index].name is None), None)
    if len(problems):
        return ()
    if final is None and len(results) > 1:
        names = ", ".join(f"'{recipes[index].name}'" for index in results)
        problems.add(places[results[1]], f"which recipe is the result: {names}?", "Leave out the `name` of that one.")
        return ()
    final = results[0] if final is None else final
    unused = tuple(
        f"{places[index]}: no other recipe uses '{recipes[index].name}', which is made all the same"
        for index in results
        if index != final
    )
    result = replace(recipes[final], warnings=recipes[final].warnings + unused)
    return (*(recipes[index] for index in order if index != final), result)


def _names(documents: Sequence[Node], problems: Problems) -> list[str | None]:
    """The name of each document; reports names given twice, those that are no path, and several documents without."""
    names: list[str | None] = []
    seen: dict[str, str] = {}
    unnamed: str | None = None
    for document in documents:
        node = document.fields.get("name")
        name = node.text.strip() if node and node.is_scalar and node.value is not None else None
        if node and name:
            if name in seen:
                problems.add(node.where, f"the name '{name}' is given twice", f"First at {seen[name]}.")
            elif not _is_path(name):
                hint = "Its result is kept in a directory of that name."
                problems.add(node.where, f"'{name}' cannot name a recipe among several", hint)
            seen.setdefault(name, node.where)
        elif unnamed:
            what = "two recipes of the file have no `name`, but only one can be the result"
            problems.add(document.where, what, f"The other begins at {unnamed}.")
        else:
            unnamed = document.where
        names.append(name)
    return names


def _is_path(name: str) -> bool:
    """Whether a directory below another can have this name."""
    parts = name.split("/")
    plain = all(part not in ("", ".", "..") and len(part.encode()) <= 200 for part in parts)
    return plain and name.isprintable() and "\\" not in name and len(parts) <= 4
