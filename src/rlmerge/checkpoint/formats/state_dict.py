"""From what a training run stores to the tensors of its model: their names, its tied head, the configuration beside."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlmerge.checkpoint.compose import Renamed, same_place
from rlmerge.checkpoint.config import read_config, ties_embeddings
from rlmerge.checkpoint.directory import has_file, has_folder
from rlmerge.checkpoint.source import Source
from rlmerge.errors import CheckpointError

_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Modules that torch.compile, FSDP and activation checkpointing put around others."""

_NESTED = ("state_dict", "model_state_dict", "model", "module")
ADAPTER = re.compile(r"(^|\.)lora_(A|B|embedding_A|embedding_B|magnitude_vector)(\.|$)")
"""Tensors of a LoRA or DoRA adapter."""

_HEAD = re.compile(r"(^|\.)(lm_head|output_layer|embed_out)\.weight$")
_EMBEDDING = re.compile(r"(^|\.)(embed_tokens|wte|word_embeddings|embed_in|embedding)\.weight$")
_INNER = ("model", "lm_head", "transformer", "gpt_neox", "backbone")
"""What the names of a causal language model begin with."""

OPTIMIZERS = {"optim", "optimizer", "optimizers", "optim_state", "optimizer_state", "optimizer_states"}
"""Objects beside a model in a checkpoint."""

_CHUNK = 1 << 20


def unwrap(saved: Any, where: str) -> Mapping[str, Any]:
    """The state dict in what torch.save was given: that itself, or a dictionary that holds it under a usual key.

    CheckpointError if there is none.
    """
    if isinstance(saved, dict):
        for key in _NESTED:
            inner = saved.get(key)
            if isinstance(inner, dict):
                return unwrap(inner, where)
        if saved and all(isinstance(name, str) for name in saved):
            return saved
    hint = "Name the directory that holds the model's weights."
    raise CheckpointError("holds no state dict of a model", where=where, hint=hint)


def finish(tensors: Mapping[str, Source], config: Mapping[str, Any] | None, root: Path) -> dict[str, Source]:
    """The tensors of a model under the names that transformers gives them, without a head that repeats the embedding.

    CheckpointError if there are none, two get one name, or they are those of an adapter.
    """
    found: dict[str, Source] = {}
    for (name, source), new in zip(tensors.items(), _renamed(tensors), strict=True):
        if not new.isprintable():
            raise CheckpointError("the name of a tensor holds control characters", where=source.where)
        if new in found:
            raise CheckpointError(f"{name!r} and another tensor are both {new!r} of the model", where=source.where)
        found[new] = source if source.name == new else Renamed(source, new)
    if not found:
        raise CheckpointError("holds no tensors of a model", where=str(root), hint=_OTHER)
    adapted = next((name for name in found if ADAPTER.search(name)), None)
    if adapted is not None:
        what = f"holds a LoRA adapter among its weights ({adapted!r}), which is no part of a plain model"
        hint = "Save the adapter itself, or fold it into the model, with the framework that trained it."
        raise CheckpointError(what, where=str(root), hint=hint)
    return _untied(found, config)


def find_side_root(candidates: Iterable[Path]) -> Path | None:
    """The first directory that has a config.json, else the first with a tokenizer."""
    present = [path.resolve() for path in candidates if has_folder(path)]
    for name in ("config.json", "tokenizer_config.json", "tokenizer.json"):
        for path in present:
            if has_file(path / name):
                return path
    return None


def config_of(side_root: Path | None) -> Mapping[str, Any] | None:
    """The configuration in a directory that may not be there."""
    return None if side_root is None else read_config(side_root)


def without_prefix(names: Sequence[str], whole: Iterable[str], nested: bool = False) -> dict[str, str]:
    """Each of ``names`` without the path of the object that held the model, such as ``app.model.``.

    ``whole`` are all entries of the checkpoint. A path is one that all names begin with. Since the names of a model
    may all begin with ``model.`` themselves, that is a path only where what follows shows it, where an optimizer
    stands beside it, or where the format says so (``nested``).
    """
    whole = list(whole)
    prefix = ""
    while names and all("." in name[len(prefix) :] for name in names):
        steps = {name[len(prefix) :].partition(".")[0] for name in names}
        path = f"{prefix}{steps.pop()}."
        if steps:
            break
        inside = any(name.startswith(tuple(f"{path}{part}." for part in _INNER)) for name in names)
        beside = {name[len(prefix) :].partition(".")[0] for name in whole if name.startswith(prefix)} & OPTIMIZERS
        if not (inside or beside or (nested and not prefix)):
            break
        prefix = path
    return {name: name[len(prefix) :] for name in names}


def _renamed(names: Iterable[str]) -> list[str]:
    """The names without the modules that were put around others."""
    found = [".".join(part for part in name.split(".") if part not in _WRAPPERS) for name in names]
    if found and all(name.startswith("module.") for name in found):
        return [name.removeprefix("module.") for name in found]
    return found


def _untied(tensors: dict[str, Source], config: Mapping[str, Any] | None) -> dict[str, Source]:
    """Without an output head that has the bits of the input embedding, unless the configuration says it is its own."""
    if ties_embeddings(config) is False:
        return tensors
    heads = [name for name in tensors if _HEAD.search(name)]
    for head in heads:
        for name, source in tensors.items():
            if _EMBEDDING.search(name) and _equal(source, tensors[head]):
                return {name: source for name, source in tensors.items() if name != head}
    return tensors


def _equal(a: Source, b: Source) -> bool:
    """Whether two tensors have the same bits; read up to the first difference, if they do not lie in one place."""
    if a.shape != b.shape or a.dtype is not b.dtype:
        return False
    if same_place(a, b):
        return True
    for start in range(0, a.numel, _CHUNK):
        stop = min(start + _CHUNK, a.numel)
        equal = np.array_equal(a.read(start, stop).view(np.uint8), b.read(start, stop).view(np.uint8))
        a.release(start, stop)
        b.release(start, stop)
        if not equal:
            return False
    return True


_OTHER = "Name the directory that holds the model's weights; other training state cannot be merged."
