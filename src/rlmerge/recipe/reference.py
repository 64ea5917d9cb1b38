"""How a recipe names a model: a directory or Hub id, with an optional revision and an optional adapter on top."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from rlmerge.addresses import check_address, is_address
from rlmerge.frozen import frozen
from rlmerge.recipe.problems import Problems
from rlmerge.recipe.tree import Node
from rlmerge.recipe.vocabulary import MODEL_KEYS

_HUB_ID = re.compile(r"\w[\w.-]*(/[\w.-]+)*")
_REVISION = re.compile(r"[\w./-]+")
_SPELL_OUT = "Spell it out: `model: {model: {path: ..., revision: ...}, lora: {path: ...}}`."


@frozen
class ModelRef:
    """A local directory, an address, or a Hub id ``org/name`` or ``org/name/folder``, and the revision of the latter.

    ``adapter`` is a LoRA to be added to its weights. ``stage`` says that ``reference`` names another recipe of the
    file, whose result is meant.
    """

    reference: str
    revision: str | None = None
    adapter: ModelRef | None = None
    stage: bool = False

    def __str__(self) -> str:
        text = f"{self.reference}@{self.revision}" if self.revision else self.reference
        return f"{text}+{self.adapter}" if self.adapter else text

    @cached_property
    def identity(self) -> str:
        """Equal for two spellings of one model: the resolved path of a directory that exists, else the name.

        It stays what it was when first asked for, should the directory be moved while it is read.
        """
        adapter = f"+{self.adapter.identity}" if self.adapter else ""
        if self.stage:
            return f"stage {self.reference}{adapter}"
        path = None if self.revision else existing(self.reference)
        return f"{path or str(ModelRef(self.reference, self.revision))}{adapter}"

    @classmethod
    def parse(cls, text: str, stages: Collection[str] = ()) -> ModelRef:
        """Split ``model[@revision][+adapter[@revision]]``.

        A name in ``stages`` comes before a directory of that name, and a path that exists as written is taken whole.
        ValueError, with the reason, for text that can be split in more than one way.
        """
        if text in stages:
            return cls(text, stage=True)
        if "+" not in text or existing(text):
            return cls._plain(text)
        base, adapter = _split(text, stages)
        model = cls(base, stage=True) if base in stages else cls._plain(base)
        return replace(model, adapter=cls._plain(adapter))

    @classmethod
    def _plain(cls, text: str) -> ModelRef:
        if is_address(text) and not existing(text):
            return cls.of_address(text)
        name, _, revision = text.partition("@")
        if not revision or not _HUB_ID.fullmatch(name) or existing(text):
            return cls(text)
        if not _REVISION.fullmatch(revision):
            raise ValueError(f"'{revision}' is not a revision of '{name}'")
        return cls(name, revision)

    @classmethod
    def of_address(cls, text: str, revision: str | None = None) -> ModelRef:
        """A model on another machine; ValueError for an address with credentials, or a revision where there is none."""
        name = check_address(text)
        if name.startswith("hf://"):
            name, _, found = name.partition("@")
            if found and revision and found != revision:
                raise ValueError(f"'{name}' is given two revisions, '{found}' and '{revision}'")
            return cls(name, revision or found or None)
        if revision:
            raise ValueError(f"{name} has no revisions; only models of the Hub do")
        return cls(name)


def existing(text: str) -> str | None:
    """The resolved path that ``text`` names, ``~`` expanded; None if there is none, whatever the reason."""
    try:
        path = Path(text).expanduser() if text.startswith("~") else Path(text)
        return str(path.resolve()) if path.exists() else None
    except (OSError, ValueError, RuntimeError):  # a name too long, a null byte, no such user, a loop of links
        return None


def _split(text: str, stages: Collection[str]) -> tuple[str, str]:
    """Model and adapter: at the only ``+``, or at the one before which there is a model."""
    parts = text.split("+")
    pairs = [("+".join(parts[:count]), "+".join(parts[count:])) for count in range(1, min(len(parts), 9))]
    if len(pairs) > 1:
        pairs = [pair for pair in pairs if pair[0] in stages or existing(pair[0])]
    if len(pairs) != 1 or not all(pairs[0]):
        raise ValueError(f"'{text}' is not one model and one adapter; write `model+adapter`")
    return pairs[0]


def read_model(node: Node, problems: Problems, what: str = "a model") -> ModelRef | None:
    """The model at ``node``: text, or mergekit's mapping form. None after reporting a problem."""
    if isinstance(node.value, dict):
        return _read_mapping(node, problems)
    text = problems.text(node, what)
    try:
        return ModelRef.parse(text, problems.stages) if text else None
    except ValueError as error:
        problems.add(node.where, str(error), None if text and is_address(text) else _SPELL_OUT)
        return None


def _read_mapping(node: Node, problems: Problems) -> ModelRef | None:
    """``{path, revision}``, or ``{model, lora, override_architecture}`` whose parts are models again."""
    known = problems.fields(node, MODEL_KEYS, "a model")
    fields = {name: entry for name, entry in known.items() if entry.value is not None}
    if "override_architecture" in fields:
        problems.warn(fields["override_architecture"].where, "override_architecture is ignored: any architecture works")
    before = len(problems)
    if "model" in fields:
        for name in ("path", "revision"):
            if name in fields:
                problems.add(fields[name].where, f"`{name}` goes inside `model:` here", _SPELL_OUT)
        model = read_model(fields["model"], problems)
    else:
        model = _read_path(node, fields, problems)
    adapter = read_model(fields["lora"], problems, "an adapter") if "lora" in fields else None
    if adapter and (adapter.adapter or (model and model.adapter)):
        problems.add(fields["lora"].where, "a model takes one adapter", "Merge the others into it first.")
    if model is None or len(problems) > before:
        return None
    return replace(model, adapter=adapter) if adapter else model


def _read_path(node: Node, fields: dict[str, Node], problems: Problems) -> ModelRef | None:
    if "path" not in fields:
        problems.add(node.where, "a model needs a `path`")
        return None
    path = problems.text(fields["path"], "a path")
    revision = problems.text(fields["revision"], "a revision") if "revision" in fields else None
    if path and path not in problems.stages and is_address(path) and not existing(path):
        try:
            return ModelRef.of_address(path, revision)
        except ValueError as error:
            problems.add(fields["path"].where, str(error))
            return None
    return ModelRef(path, revision, stage=revision is None and path in problems.stages) if path else None
