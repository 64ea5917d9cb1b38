"""A recipe as a tree of nodes that remember where they were written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from typing import cast

from rlmerge.errors import RecipeError, RequestError
from rlmerge.frozen import frozen
from rlmerge.recipe.words import printable

MAX_NODES = 100_000
"""Most values of a recipe, aliases followed: a few lines of YAML can otherwise stand for billions."""

MAX_DEPTH = 64
"""Deepest nesting of a recipe; real ones stay below twelve."""

MAX_BITS = 4096
"""Longest whole number: nobody means a longer one, and Python refuses to print one of 4300 digits."""

_SURROGATE = re.compile("[\ud800-\udfff]")

Scalar = str | int | float | bool | None


@frozen(slots=True)
class Node:
    """One value of a recipe: a scalar, a list or a mapping, with the place to name when something is wrong with it.

    ``text`` is a scalar as it was written, so that a model called ``007`` keeps its name.
    """

    value: Scalar | list[Node] | dict[str, Node]
    where: str
    line: int | None = None
    text: str = ""

    @property
    def items(self) -> list[Node]:
        """The nodes of a list."""
        return self.value if isinstance(self.value, list) else []

    @property
    def fields(self) -> dict[str, Node]:
        """The entries of a mapping; each entry's place is its key's."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def is_scalar(self) -> bool:
        return not isinstance(self.value, list | dict)


def failure(what: str, where: str, hint: str | None = None) -> RecipeError:
    """A RecipeError with one problem."""
    return RecipeError([RequestError(printable(what), where=where, hint=printable(hint) if hint else None)])


def text_node(text: str, where: str) -> Node:
    """A node of text; RecipeError for text that no file can hold, such as a file name that is not UTF-8."""
    if _SURROGATE.search(text):
        hint = "Give the file a name in UTF-8."
        raise failure(f"'{printable(text, 80)}' holds characters that cannot be written down", where, hint)
    return Node(text, where, text=text)


def from_value(value: object, where: str = "recipe") -> Node:
    """The tree of plain Python data; places are written like ``models[1].parameters.weight``.

    RecipeError for what no recipe can hold, for too much of it, and for data that contains itself.
    """
    return _Reader().node(value, where, 1)


class _Reader:
    """Turns Python values into nodes within a budget."""

    def __init__(self) -> None:
        self.count = 0

    def node(self, value: object, where: str, depth: int) -> Node:
        self.count += 1
        if self.count > MAX_NODES:
            raise failure(f"recipe holds more than {MAX_NODES} values", where, "Is this a recipe?")
        if depth > MAX_DEPTH:
            raise failure("nested too deeply to be a recipe", where)
        value = _plain(value, where)
        if isinstance(value, Mapping):
            prefix = "" if where == "recipe" else f"{where}."
            entries = cast("Mapping[object, object]", value).items()
            named = [(_key(key, where), entry) for key, entry in entries]
            return Node({key: self.node(entry, f"{prefix}{_shown(key)}", depth + 1) for key, entry in named}, where)
        if isinstance(value, list | tuple):
            items = cast("Sequence[object]", value)
            return Node([self.node(item, f"{where}[{index}]", depth + 1) for index, item in enumerate(items)], where)
        if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > MAX_BITS:
            raise failure("the number is too long to read", where)
        if isinstance(value, str):
            return text_node(value, where)
        if value is None or isinstance(value, int | float | bool):
            return Node(value, where, text=str(value))
        raise failure(f"a recipe cannot hold a {type(value).__name__}", where)


def _plain(value: object, where: str) -> object:
    """Paths as text, NumPy scalars and arrays as Python's, any sequence as a list."""
    if isinstance(value, PathLike):
        value = fspath(cast("PathLike[str]", value))
    elif hasattr(value, "tolist"):
        try:
            value = value.tolist()  # pyright: ignore[reportAttributeAccessIssue]
        except Exception as error:
            raise failure(f"cannot read the value: {error}", where) from error
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
        return list(cast("Sequence[object]", value))
    return value


def _shown(key: str) -> str:
    return printable(key, 40) or "''"


def _key(key: object, where: str) -> str:
    if isinstance(key, str | int | float | bool):
        return text_node(str(key), where).text
    raise failure(f"a key of a recipe must be text, not a {type(key).__name__}", where)
