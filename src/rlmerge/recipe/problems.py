"""Collects everything that is wrong with a recipe, so that a user mends it in one go."""

from __future__ import annotations

from collections.abc import Sequence

from rlmerge.errors import RecipeError, RequestError, did_you_mean
from rlmerge.recipe.tree import Node


class Problems:
    """The findings so far: errors that stop the recipe, and warnings that do not."""

    def __init__(self) -> None:
        self.errors: list[RequestError] = []
        self.warnings: list[str] = []

    def __len__(self) -> int:
        return len(self.errors)

    def add(self, where: str, what: str, hint: str | None = None) -> None:
        """Report an error."""
        self.errors.append(RequestError(what, where=where, hint=hint))

    def warn(self, where: str, what: str) -> None:
        """Report something that will be ignored or is probably not meant."""
        self.warnings.append(f"{where}: {what}")

    def raise_if_any(self) -> None:
        """RecipeError with all errors, unless there are none."""
        if self.errors:
            raise RecipeError(self.errors)

    def fields(self, node: Node, known: Sequence[str], owner: str, elsewhere: Sequence[str] = ()) -> dict[str, Node]:
        """The entries of a mapping that are ``known``; reports the others, and anything that is no mapping.

        Names in ``elsewhere`` are parameters: written here, they are one level too high.
        """
        if not isinstance(node.value, dict):
            self.add(node.where, f"{owner} must be a mapping of keys to values")
            return {}
        for name, entry in node.value.items():
            if name not in known:
                misplaced = name in elsewhere and "parameters" in known
                hint = f"'{name}' goes under `parameters:`." if misplaced else did_you_mean(name, known)
                self.add(entry.where, f"unknown key '{name}' in {owner}", hint)
        return {name: entry for name, entry in node.value.items() if name in known}

    def text(self, node: Node, owner: str) -> str | None:
        """A non-empty string, spelled as written; None after reporting anything else."""
        if node.is_scalar and node.value is not None and node.text.strip():
            return node.text.strip()
        self.add(node.where, f"{owner} must be text")
        return None
