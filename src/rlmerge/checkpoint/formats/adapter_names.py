"""Which tensors of the base a name in an adapter means, where the two spell it differently."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from rlmerge.checkpoint.source import Source
from rlmerge.errors import CheckpointError, nearest
from rlmerge.frozen import frozen

if TYPE_CHECKING:
    from rlmerge.checkpoint.model import Checkpoint

_WRAPPERS = {"model", "base_model", "language_model", "module", "transformer", "vision_model"}
"""Parts of a name that say only how a model is wrapped; they differ between what is saved and what is in memory."""

_SYNONYMS = {"block_sparse_moe": "mlp"}

_EMBEDDINGS = {f"{name}.weight" for name in ("embed_tokens", "wte", "word_embeddings", "embed_in", "tok_embeddings")}
_HEAD = "lm_head.weight"

_STACKED = {
    "gate_up_proj": (("gate_proj", "up_proj"), ("w1", "w3")),
    "down_proj": (("down_proj",), ("w2",)),
}
"""A parameter that holds all experts in memory, and what its rows are on disk: one module after the other."""

_POSITIONS = {"wpe", "embed_positions", "position_embedding", "position_embeddings"}

_INDEX = re.compile(r"\d+")
_MAX_COMPARED = 2000


@frozen
class Slab:
    """A base tensor that is part of a parameter of all experts: rows [first, first + rows) of ``expert``."""

    tensor: Source
    expert: int
    first: int
    rows: int


@frozen
class Stack:
    """A parameter of all ``experts`` of a layer, [experts, rows, cols], and the tensors that hold it.

    ``whole`` where one tensor holds all of it, as it is in memory; else each of ``slabs`` is stored as a linear layer
    of its own, [out, in].
    """

    name: str
    experts: int
    rows: int
    cols: int
    slabs: tuple[Slab, ...]
    whole: bool


def is_embedding(name: str) -> bool:
    """Whether a tensor is looked up by index, to judge by its name."""
    return _core(name) in _EMBEDDINGS or name.rpartition(".")[0].rpartition(".")[2] in _POSITIONS


class BaseNames:
    """The tensors of a base by the names that an adapter may give them."""

    def __init__(self, base: Checkpoint, where: str) -> None:
        self._base = base
        self._where = where

    @property
    def tensors(self) -> Mapping[str, Source]:
        return self._base.tensors

    def find(self, name: str) -> str | None:
        """The base's name of ``name``, or None. CheckpointError if it could mean several tensors."""
        if name in self.tensors:
            return name
        found = self._by_core.get(_core(name), [])
        if len(found) > 1:
            what = f"{name} could be {' or '.join(found[:3])} of the base"
            raise CheckpointError(what, where=self._where, hint="Give the model the adapter was trained on as base.")
        return found[0] if found else None

    @cached_property
    def embedding(self) -> str | None:
        """The input embedding's table, if exactly one tensor looks like it."""
        found = [name for name in self.tensors if _core(name) in _EMBEDDINGS]
        return found[0] if len(found) == 1 else None

    @cached_property
    def head(self) -> str:
        """The output head's table, or the name that a tied model's would have."""
        stored = next((name for name in self.tensors if _core(name) == _HEAD), None)
        if stored is not None:
            return stored
        before, found, _ = (self.embedding or "").partition("language_model.model.")
        return f"{before}language_model.{_HEAD}" if found else _HEAD

    def is_head(self, name: str) -> bool:
        """Whether an adapter's ``name`` means the output head's table."""
        return _core(name) == _HEAD

    def stack(self, name: str) -> Stack | None:
        """The parameter ``name`` of all experts of a layer, stored in one tensor or expert by expert."""
        found = self.find(name)
        if found is not None:
            tensor = self.tensors[found]
            if len(tensor.shape) != 3:
                return None
            experts, rows, cols = tensor.shape
            return Stack(name, experts, rows, cols, (Slab(tensor, 0, 0, rows),), True)
        module, _, parameter = name.rpartition(".")
        for parts in _STACKED.get(parameter, ()):
            stack = self._by_expert(name, module, parts)
            if stack is not None:
                return stack
        return None

    def _by_expert(self, name: str, module: str, parts: tuple[str, ...]) -> Stack | None:
        slabs: list[Slab] = []
        experts = rows = 0
        cols = set[int]()
        while True:
            names = [self.find(f"{module}.{experts}.{part}.weight") for part in parts]
            found = [self.tensors[name] for name in names if name is not None]
            if len(found) < len(parts) or any(len(tensor.shape) != 2 for tensor in found):
                break
            rows = 0
            for tensor in found:
                slabs.append(Slab(tensor, experts, rows, tensor.shape[0]))
                rows += tensor.shape[0]
                cols.add(tensor.shape[1])
            experts += 1
        same = len({(slab.first, slab.rows) for slab in slabs}) == len(parts) and len(cols) == 1
        return Stack(name, experts, rows, cols.pop(), tuple(slabs), False) if slabs and same else None

    def unknown(self, name: str, key: str) -> CheckpointError:
        """The error for an adapter's tensor ``key``, which changes ``name`` that the base lacks."""
        what = f"{key!r} changes {name}, which the base has not"
        core = _core(name)
        shape, end = _INDEX.sub("0", core), core.rsplit(".", 2)[-2:]
        alike = [other for other in self._by_core if _INDEX.sub("0", other) == shape]
        alike = alike or [other for other in self._by_core if other.rsplit(".", 2)[-2:] == end] or list(self._by_core)
        close = nearest(core, alike[:_MAX_COMPARED])
        hint = f"The nearest name there is {self._by_core[close][0]!r}. " if close else ""
        return CheckpointError(what, where=self._where, hint=f"{hint}Was the adapter trained on another model?")

    @cached_property
    def _by_core(self) -> Mapping[str, list[str]]:
        cores: dict[str, list[str]] = {}
        for name in self.tensors:
            cores.setdefault(_core(name), []).append(name)
        return cores


def unwrapped(name: str) -> str:
    """``name`` from the first part on that does not just wrap a model."""
    parts = name.split(".")
    while len(parts) > 1 and parts[0] in _WRAPPERS:
        parts.pop(0)
    return ".".join(parts)


def _core(name: str) -> str:
    """``name`` without the parts that differ between ways to wrap a model."""
    parts = (_SYNONYMS.get(part, part) for part in name.split(".") if part not in _WRAPPERS)
    return ".".join(parts)
