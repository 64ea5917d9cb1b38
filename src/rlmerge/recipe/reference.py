"""How a recipe names a model: a directory or Hub id, with an optional revision."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from rlmerge.recipe.problems import Problems
from rlmerge.recipe.tree import Node

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_MERGE_FIRST = "Merge the adapter into its model first (PEFT's merge_and_unload), then name the merged directory."


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A local directory or a Hub id ``org/name``, and the revision of the latter."""

    reference: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.reference}@{self.revision}" if self.revision else self.reference

    @property
    def identity(self) -> str:
        """Equal for two spellings of one model: the resolved path of a directory that exists, else the name."""
        if self.revision is None and Path(self.reference).exists():
            return str(Path(self.reference).resolve())
        return str(self)

    @classmethod
    def parse(cls, text: str) -> ModelRef:
        """Split ``path_or_id[@revision]``; a path that exists as written is taken whole."""
        name, _, revision = text.partition("@")
        if revision and _HUB_ID.fullmatch(name) and not Path(text).exists():
            return cls(name, revision)
        return cls(text)


def read_model(node: Node, problems: Problems) -> ModelRef | None:
    """The model at ``node``: text, or mergekit's mapping form. None after reporting a problem."""
    if isinstance(node.value, dict):
        return _read_mapping(node, problems)
    text = problems.text(node, "a model")
    if text is None:
        return None
    if "+" in text and not Path(text).exists():
        base, _, adapter = text.partition("+")
        problems.add(node.where, f"LoRA adapters ('{base}' + '{adapter}') are not supported yet", _MERGE_FIRST)
        return None
    return ModelRef.parse(text)


def _read_mapping(node: Node, problems: Problems) -> ModelRef | None:
    known = ("model", "path", "revision", "lora", "override_architecture")
    fields = problems.fields(node, known, "a model")
    if "lora" in fields and fields["lora"].value is not None:
        problems.add(fields["lora"].where, "LoRA adapters are not supported yet", _MERGE_FIRST)
    if "override_architecture" in fields:
        problems.warn(fields["override_architecture"].where, "override_architecture is ignored: any architecture works")
    if "model" in fields:
        return read_model(fields["model"], problems)
    if "path" not in fields:
        problems.add(node.where, "a model needs a `path`")
        return None
    path = problems.text(fields["path"], "a path")
    has_revision = "revision" in fields and fields["revision"].value is not None
    revision = problems.text(fields["revision"], "a revision") if has_revision else None
    return ModelRef(path, revision) if path else None
