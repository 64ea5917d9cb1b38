"""A tied model with its output head written out, to stand beside models that store one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rlmerge.checkpoint.formats.adapter_names import BaseNames
from rlmerge.checkpoint.formats.adapter_sources import Untied

if TYPE_CHECKING:
    from rlmerge.checkpoint.model import Checkpoint


def with_own_head(checkpoint: Checkpoint) -> Checkpoint:
    """``checkpoint`` with the head as a tensor of its own, equal to the embedding, and a configuration that says so.

    The same object if it is not tied, or if no single tensor looks like its input embedding. A head that a tied model
    stores beside the embedding counts as its own.
    """
    names = BaseNames(checkpoint, checkpoint.reference)
    embedding, head = names.embedding, names.head
    if not checkpoint.tied_embeddings or embedding is None:
        return checkpoint
    tensors = dict(checkpoint.tensors)
    if head not in tensors:
        table = tensors[embedding]
        tensors[head] = Untied(head, head, table, table)
    return replace(checkpoint, tensors=tensors, config=untied_config(checkpoint.config))


def untied_config(config: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """``config`` of a model that stores both its embeddings, also in the part for text of a model of several."""
    if config is None:
        return None
    changed = {**config, "tie_word_embeddings": False}
    if isinstance(config.get("text_config"), dict):
        changed["text_config"] = {**config["text_config"], "tie_word_embeddings": False}
    return changed
