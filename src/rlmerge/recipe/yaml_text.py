"""YAML text into trees, one a document: in linear time, within budgets, and without constructing any object.

The parser's events are assembled here rather than by PyYAML's composer: that recurses, and it resolves aliases and tags
on its own terms. Scalars are read as PyYAML reads them (YAML 1.1), as mergekit's users expect.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import yaml
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

from rlmerge.frozen import frozen
from rlmerge.recipe.problems import Problems
from rlmerge.recipe.tree import MAX_BITS, MAX_DEPTH, MAX_NODES, Node, Scalar, failure

MAX_BYTES = 1_000_000
"""Largest recipe text: far above any real one."""

# libyaml's parser where PyYAML brings it: a megabyte takes it a tenth of a second, the Python one several seconds.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_PLAIN = "tag:yaml.org,2002:"
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_NOT_YAML = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LONGEST_NUMBER = 1300
"""Characters of a number; one of more bits than ``MAX_BITS`` needs no parsing to be refused."""


def documents(text: str, origin: str) -> list[Node]:
    """The documents of YAML text but the empty ones; RecipeError when it is malformed, oversized, or not plain data."""
    text = text.removeprefix("\ufeff")
    bad = _NOT_YAML.search(text)
    if bad:
        line = text.count("\n", 0, bad.start()) + 1
        raise failure(f"not valid YAML: the character U+{ord(bad[0]):04X} is not allowed", f"{origin}:{line}")
    if len(text.encode()) > MAX_BYTES:
        raise failure(f"recipe is larger than {MAX_BYTES // 1_000_000} MB", origin, "Is this file a recipe?")
    assembler = _Assembler(origin)
    try:
        for event in cast("Iterator[Any]", yaml.parse(text, Loader=_LOADER)):
            assembler.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{origin}:{mark.line + 1}" if mark else origin
        raise failure(f"not valid YAML: {error.problem or error.context}", where) from error
    except yaml.YAMLError as error:
        raise failure(f"not valid YAML: {str(error).splitlines()[0]}", origin) from error
    assembler.problems.raise_if_any()
    return assembler.documents


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not been reached; of a mapping also the key that waits for its value."""

    line: int
    anchor: str | None
    fields: dict[str, Node] | None
    items: list[Node] = field(default_factory=list[Node])
    merged: dict[str, Node] = field(default_factory=dict[str, Node])
    weight: int = 1
    key: _Key | None = None


@frozen(slots=True)
class _Key:
    """``name`` is None for a list or mapping, which cannot be a key here; ``merges`` marks ``<<``."""

    name: str | None
    line: int
    merges: bool = False


class _Assembler:
    """Builds nodes from parser events."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.problems = Problems()
        self.documents: list[Node] = []
        self.open: list[_Open] = []
        self.anchors: dict[str, tuple[Node, int] | None] = {}
        self.count = 0
        self.tags = Resolver()

    def take(self, event: Any) -> None:
        """One event of the parser."""
        kind = type(event)
        if kind is yaml.ScalarEvent:
            self.scalar(event)
        elif kind is yaml.SequenceStartEvent or kind is yaml.MappingStartEvent:
            self.start(event)
        elif kind is yaml.SequenceEndEvent or kind is yaml.MappingEndEvent:
            self.end()
        elif kind is yaml.AliasEvent:
            self.alias(event)
        elif kind is yaml.DocumentStartEvent:
            self.anchors = {}

    def where(self, line: int) -> str:
        return f"{self.origin}:{line}"

    def charge(self, weight: int, line: int) -> None:
        """Count values as if every alias were written out."""
        self.count += weight
        if self.count > MAX_NODES:
            what = f"recipe expands to more than {MAX_NODES} values"
            raise failure(what, self.where(line), "Is this a recipe? Use fewer YAML aliases.")

    def start(self, event: Any) -> None:
        line = event.start_mark.line + 1
        if len(self.open) >= MAX_DEPTH:
            raise failure("nested too deeply to be a recipe", self.where(line))
        self.charge(1, line)
        mapping = isinstance(event, yaml.MappingStartEvent)
        if event.tag not in (None, "!", _PLAIN + ("map" if mapping else "seq")):
            self.problems.add(self.where(line), f"YAML tag '{event.tag}' has no meaning in a recipe")
        if event.anchor:
            self.anchors[event.anchor] = None
        self.open.append(_Open(line, event.anchor, {} if mapping else None))

    def end(self) -> None:
        done = self.open.pop()
        if done.fields is None:
            value: list[Node] | dict[str, Node] = done.items
        else:
            value = {**{name: node for name, node in done.merged.items() if name not in done.fields}, **done.fields}
        self.place(Node(value, self.where(done.line), done.line), done.weight, done.anchor)

    def scalar(self, event: Any) -> None:
        line = event.start_mark.line + 1
        if self.expects_key():
            self.key(event, line)
            return
        self.charge(1, line)
        node = Node(self.read(event, line), self.where(line), line, event.value)
        self.place(node, 1, event.anchor)

    def alias(self, event: Any) -> None:
        line = event.start_mark.line + 1
        if event.anchor not in self.anchors:
            raise failure(f"not valid YAML: the alias *{event.anchor} has no anchor", self.where(line))
        found = self.anchors[event.anchor]
        if found is None:
            raise failure("a YAML alias refers to the value that contains it", self.where(line))
        node, weight = found
        self.charge(weight, line)
        self.place(Node(node.value, self.where(line), line, node.text), weight, None)

    def expects_key(self) -> bool:
        """Whether the next value is a key of the mapping that is open."""
        parent = self.open[-1] if self.open else None
        return parent is not None and parent.fields is not None and parent.key is None

    def key(self, event: Any, line: int) -> None:
        merges = event.value == "<<" and (event.tag == _PLAIN + "merge" or (not event.tag and event.implicit[0]))
        self.open[-1].key = _Key(event.value, line, merges)
        if event.anchor:
            self.anchors[event.anchor] = Node(event.value, self.where(line), line, event.value), 1

    def place(self, node: Node, weight: int, anchor: str | None) -> None:
        """Put a finished value where it belongs: the document, a list, a key or a key's value."""
        if anchor:
            self.anchors[anchor] = node, weight
        parent = self.open[-1] if self.open else None
        if parent is None:
            if node.value is not None:
                self.documents.append(node)
            return
        parent.weight += weight
        if parent.fields is None:
            parent.items.append(node)
        elif parent.key is not None:
            self.entry(parent, parent.fields, parent.key, node)
        else:
            parent.key = _Key(node.text if node.is_scalar else None, node.line or 0)
            if not node.is_scalar:
                self.problems.add(node.where, "a key must be a plain name")

    def entry(self, parent: _Open, fields: dict[str, Node], key: _Key, node: Node) -> None:
        """The value of a key; its place is the key's."""
        parent.key = None
        node = Node(node.value, self.where(key.line), key.line, node.text)
        if key.merges:
            self.merge(parent, node)
        elif key.name in fields:
            self.problems.add(node.where, f"key '{key.name}' is given twice", f"First at {fields[key.name].where}.")
        elif key.name is not None:
            fields[key.name] = node

    def merge(self, parent: _Open, node: Node) -> None:
        """What ``<<`` brings in: one mapping, or several of which the first wins."""
        for part in node.items or [node]:
            if not isinstance(part.value, dict):
                self.problems.add(part.where, "'<<' takes a mapping or a list of mappings")
            for name, entry in part.fields.items():
                parent.merged.setdefault(name, entry)

    def read(self, event: Any, line: int) -> Scalar:
        """The value of a scalar; None after reporting one that cannot be read."""
        text: str = event.value
        named = event.tag not in (None, "!")
        tag: str = event.tag if named else self.tags.resolve(yaml.ScalarNode, text, event.implicit)
        # YAML 1.1 reads 1e-5 (no point) as text; everyone who writes it means a number
        if tag == _PLAIN + "str" and not named and event.implicit[0] and _NUMBER.fullmatch(text):
            tag = _PLAIN + "number"
        kind = tag.removeprefix(_PLAIN)
        if kind in ("str", "timestamp", "value", "merge"):
            return text
        if kind not in _READERS:
            self.problems.add(self.where(line), f"YAML tag '{tag}' has no meaning in a recipe")
            return None
        try:
            return _READERS[kind](text)
        except (ValueError, LookupError, OverflowError):
            self.problems.add(self.where(line), f"cannot read '{text}' as a value")
            return None


def _whole(text: str) -> int:
    number = int(text) if _SIMPLE.fullmatch(text) else _constructed("int", text)
    if number.bit_length() > MAX_BITS:
        raise ValueError(text)
    return number


def _constructed(kind: str, text: str) -> Any:
    """As PyYAML reads it: with underscores, in other bases, with colons."""
    node = yaml.ScalarNode(_PLAIN + kind, text)
    return _CONSTRUCTOR.construct_yaml_int(node) if kind == "int" else _CONSTRUCTOR.construct_yaml_float(node)


def _limited(read: Callable[[str], Scalar]) -> Callable[[str], Scalar]:
    """``read``, refusing text that is too long for a number."""

    def limited(text: str) -> Scalar:
        if len(text) > _LONGEST_NUMBER:
            raise ValueError(text)
        return read(text)

    return limited


_SIMPLE = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_CONSTRUCTOR: Any = SafeConstructor()
_READERS: dict[str, Callable[[str], Scalar]] = {
    "null": lambda text: None,
    "bool": lambda text: SafeConstructor.bool_values[text.lower()],
    "int": _limited(_whole),
    "float": _limited(lambda text: _constructed("float", text)),
    "number": _limited(float),
}
