"""A recipe as a tree of nodes that remember where they were written, from YAML text or from Python values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from typing import cast

import yaml
from yaml.constructor import SafeConstructor

from rlmerge.errors import RecipeError, RequestError

MAX_BYTES = 1_000_000
"""Largest recipe text: far above any real one, small enough that parsing stays a matter of seconds."""

MAX_NODES = 50_000
"""Most nodes after aliases are followed: a few lines of YAML aliases can otherwise stand for billions."""

Scalar = str | int | float | bool | None

_PLAIN = "tag:yaml.org,2002:"
_SCALARS = {_PLAIN + kind for kind in ("str", "int", "float", "bool", "null", "timestamp", "value")}
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


@dataclass(frozen=True, slots=True)
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
    return RecipeError([RequestError(what, where=where, hint=hint)])


def from_text(text: str, origin: str) -> Node:
    """Parse YAML without constructing any object; RecipeError when it is malformed, oversized, or not plain data."""
    if len(text.encode(errors="surrogatepass")) > MAX_BYTES:
        raise failure(f"recipe is larger than {MAX_BYTES // 1_000_000} MB", origin, "Is this file a recipe?")
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        where = f"{origin}:{error.problem_mark.line + 1}" if error.problem_mark else origin
        raise failure(f"not valid YAML: {error.problem or error.context}", where) from error
    except yaml.YAMLError as error:
        raise failure(f"not valid YAML: {str(error).splitlines()[0]}", origin) from error
    except RecursionError as error:
        raise failure("nested too deeply to be a recipe", origin) from error
    if root is None:
        raise failure("recipe is empty", origin, "It needs at least `merge_method` and `models`.")
    return _Converter(origin).convert(root)


class _Converter:
    """Turns PyYAML nodes into ours, following aliases within a budget."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.problems: list[RequestError] = []
        self.open: set[int] = set()
        self.count = 0
        self.scalars = SafeConstructor()

    def convert(self, root: yaml.Node) -> Node:
        node = self.node(root)
        if self.problems:
            raise RecipeError(self.problems)
        return node

    def node(self, node: yaml.Node, line: int | None = None) -> Node:
        line = node.start_mark.line + 1 if line is None else line
        where = f"{self.origin}:{line}"
        self.count += 1
        if self.count > MAX_NODES:
            raise failure(f"recipe expands to more than {MAX_NODES} values", where, "Use fewer YAML aliases.")
        if id(node) in self.open:
            raise failure("a YAML alias refers to the value that contains it", where)
        if isinstance(node, yaml.ScalarNode):
            return Node(self.scalar(node, where), where, line, node.value)
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode) and node.tag == _PLAIN + "seq":
                return Node([self.node(item) for item in node.value], where, line)
            if isinstance(node, yaml.MappingNode) and node.tag == _PLAIN + "map":
                return Node(self.mapping(node), where, line)
        finally:
            self.open.discard(id(node))
        self.problem(where, f"YAML tag '{node.tag}' has no meaning in a recipe")
        return Node(None, where, line)

    def scalar(self, node: yaml.ScalarNode, where: str) -> Scalar:
        if node.tag not in _SCALARS:
            self.problem(where, f"YAML tag '{node.tag}' has no meaning in a recipe")
            return None
        # YAML 1.1 reads 1e-5 (no point) as text; everyone who writes it means a number
        if node.style is None and _NUMBER.fullmatch(node.value) and not node.tag.endswith((":int", ":float")):
            return float(node.value)
        if node.tag.endswith((":str", ":timestamp", ":value")):
            return node.value
        try:
            return cast(Scalar, self.scalars.construct_object(node))
        except (ValueError, yaml.YAMLError):
            self.problem(where, f"cannot read '{node.value[:40]}' as a value")
            return None

    def mapping(self, node: yaml.MappingNode) -> dict[str, Node]:
        fields: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            where = f"{self.origin}:{line}"
            if key.tag == _PLAIN + "merge":
                for name, entry in self.merge(self.node(value, line)).items():
                    merged.setdefault(name, entry)
            elif not isinstance(key, yaml.ScalarNode):
                self.problem(where, "a key must be a plain name")
            elif key.value in fields:
                self.problem(where, f"key '{key.value}' is given twice", f"First at {fields[key.value].where}.")
            else:
                fields[key.value] = self.node(value, line)
        return {**{name: entry for name, entry in merged.items() if name not in fields}, **fields}

    def merge(self, node: Node) -> dict[str, Node]:
        """What ``<<`` brings in: one mapping, or several of which the first wins."""
        fields: dict[str, Node] = {}
        for part in node.items or [node]:
            if not isinstance(part.value, dict):
                self.problem(part.where, "'<<' takes a mapping or a list of mappings")
            for name, entry in part.fields.items():
                fields.setdefault(name, entry)
        return fields

    def problem(self, where: str, what: str, hint: str | None = None) -> None:
        self.problems.append(RequestError(what, where=where, hint=hint))


def from_value(value: object, where: str = "recipe") -> Node:
    """The tree of plain Python data; places are written like ``models[1].parameters.weight``."""
    if isinstance(value, Mapping):
        entries = cast("Mapping[object, object]", value).items()
        prefix = "" if where == "recipe" else f"{where}."
        return Node({str(key): from_value(entry, f"{prefix}{key}") for key, entry in entries}, where)
    if isinstance(value, PathLike):
        value = fspath(cast("PathLike[str]", value))
    if hasattr(value, "tolist"):  # NumPy scalars and arrays
        value = value.tolist()  # pyright: ignore[reportAttributeAccessIssue]
    if value is None or isinstance(value, str | int | float | bool):
        return Node(value, where, text=str(value))
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        items = cast("Sequence[object]", value)
        return Node([from_value(item, f"{where}[{index}]") for index, item in enumerate(items)], where)
    raise failure(f"a recipe cannot hold a {type(value).__name__}", where)
