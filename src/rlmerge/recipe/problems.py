"""Collects everything that is wrong with a recipe, so that a user mends it in one go."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from rlmerge.errors import RecipeError, RequestError, did_you_mean
from rlmerge.recipe.vocabulary import PLACES, is_seed, names_mergekit
from rlmerge.recipe.words import near_miss, printable

if TYPE_CHECKING:
    from rlmerge.recipe.tree import Node

MOST = 100
"""Errors, and warnings, that are told one by one; the rest are counted."""

MOST_FOREIGN = 1000
"""Keys without a meaning that are looked at."""

_LINE = re.compile(r":([0-9]{1,7})$")


class Problems:
    """The findings so far: errors that stop the recipe, and warnings that do not.

    ``lenient`` is ``compat: mergekit``: keys that are not ours are no errors. ``strict`` is the opposite: they all are.
    ``stages`` are the names of the file's other recipes, which stand for their results wherever a model does.
    """

    def __init__(self, *, lenient: bool = False, strict: bool = False, stages: Collection[str] = ()) -> None:
        self.lenient = lenient
        self.strict = strict
        self.stages = frozenset(stages)
        self._errors: list[RequestError] = []
        self._warnings: list[str] = []
        self._more_errors = 0
        self._more_warnings = 0
        self._foreign_keys = 0

    def __len__(self) -> int:
        return len(self._errors) + self._more_errors

    @property
    def errors(self) -> list[RequestError]:
        """The errors by line, those of one line as they were found."""
        found = sorted(self._errors, key=lambda error: _line(error.where))
        return found + [RequestError(f"and {self._more_errors} more problems")] * (self._more_errors > 0)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings by line."""
        found = sorted(self._warnings, key=lambda text: _line(text.partition(": ")[0]))
        return (*found, *([f"and {self._more_warnings} more warnings"] if self._more_warnings else []))

    def add(self, where: str, what: str, hint: str | None = None) -> None:
        """Report an error."""
        if len(self._errors) == MOST:
            self._more_errors += 1
            return
        self._errors.append(RequestError(printable(what), where=where, hint=printable(hint) if hint else None))

    def warn(self, where: str, what: str) -> None:
        """Report something that will be ignored or is probably not meant."""
        if len(self._warnings) == MOST:
            self._more_warnings += 1
            return
        self._warnings.append(f"{where}: {printable(what)}")

    def raise_if_any(self) -> None:
        """RecipeError with all errors, unless there are none."""
        if len(self):
            raise RecipeError(self.errors)

    def fields(self, node: Node, known: Sequence[str], owner: str, parameters: Sequence[str] = ()) -> dict[str, Node]:
        """The entries of a mapping that are ``known``; reports the others, and anything that is no mapping.

        Names in ``parameters`` are those of the method: written here, they are one level too high.
        """
        if not isinstance(node.value, dict):
            self.add(node.where, f"{owner} must be a mapping of keys to values")
            return {}
        for name, entry in node.value.items():
            if name not in known and not name.startswith("x-"):
                self._foreign(name, entry, known, owner, parameters)
        return {name: entry for name, entry in node.value.items() if name in known}

    def _foreign(self, name: str, node: Node, known: Sequence[str], owner: str, parameters: Sequence[str]) -> None:
        """A key that means nothing here: an error where something else was meant, else a warning."""
        where = node.where
        if self.has_enough_of(where) or self.is_half_a_number(name, node):
            return
        if is_seed(name):
            self.warn(where, f"'{name}' has no effect in a recipe; give --seed on the command line")
            return
        hint = None
        if name in parameters:
            hint = f"'{name}' goes under `parameters:`."
        elif name in PLACES:
            hint = f"`{name}` goes {PLACES[name]}."
        elif not names_mergekit(name):
            hint = _meant(near_miss(name, known)) or _meant(near_miss(name, parameters, shortest=5))
        if hint is None or self.lenient:
            self.warn(where, f"unknown key '{name}' in {owner}: ignored, as in mergekit")
        else:
            self.add(where, f"unknown key '{name}' in {owner}", hint)

    def is_half_a_number(self, name: str, node: Node) -> bool:
        """Report the ``5`` of ``{weight: 0,5}``, which YAML reads as a key of its own beside a weight of 0."""
        found = node.value is None and name.isascii() and name.isdigit()
        if found:
            self.add(
                node.where,
                f"'{name}' is a key without a value here",
                f"A number takes a point: 0.{name}, not 0,{name}.",
            )
        return found

    def has_enough_of(self, where: str) -> bool:
        """Count a key that means nothing; True once there are too many to compare each with all others."""
        self._foreign_keys += 1
        if self._foreign_keys == MOST_FOREIGN + 1:
            self.add(where, f"more than {MOST_FOREIGN} keys mean nothing in a recipe", "Is this file a recipe?")
        return self._foreign_keys > MOST_FOREIGN

    def text(self, node: Node, owner: str) -> str | None:
        """A non-empty string, spelled as written; None after reporting anything else."""
        if node.is_scalar and node.value is not None and node.text.strip():
            return node.text.strip()
        self.add(node.where, f"{owner} must be text")
        return None

    def choice(self, node: Node, known: Sequence[str], owner: str) -> str | None:
        """One of the ``known`` words; None after reporting anything else."""
        text = self.text(node, owner)
        if text is not None and text not in known:
            self.add(node.where, f"{owner} cannot be '{text}'", did_you_mean(printable(text, 40), known))
            return None
        return text

    def whole(self, node: Node, owner: str, least: int, most: int) -> int | None:
        """A whole number within bounds, quoted or not; None after reporting anything else."""
        number = as_whole(node)
        if number is None or not least <= number <= most:
            self.add(node.where, f"{owner} must be a whole number from {least} to {most}, not '{node.text}'")
            return None
        return number


def as_whole(node: Node) -> int | None:
    """The whole number a node holds: 4, 4.0 and '4' alike; None for everything else."""
    value = node.value
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str):
        return int(value) if _WHOLE.fullmatch(value.strip()) else None
    return int(value) if isinstance(value, int) or value.is_integer() else None


_WHOLE = re.compile(r"[-+]?[0-9]{1,18}")


def as_switch(value: object) -> bool | None:
    """On or off where a value says that: a boolean, 0 or 1, or their names in quotes; None for everything else."""
    if isinstance(value, str):
        return _WORDS.get(value.strip().lower())
    return bool(value) if isinstance(value, int | float) and value in (0, 1) else None


_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def _meant(name: str | None) -> str | None:
    return f"Did you mean '{name}'?" if name else None


def _line(where: str | None) -> int:
    found = _LINE.search(where or "")
    return int(found[1]) if found else 0
