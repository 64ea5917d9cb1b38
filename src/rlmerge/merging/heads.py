"""Output heads that share the input embedding's weights, and those that no longer do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlmerge.checkpoint import Checkpoint, Source
from rlmerge.checkpoint.compose import Renamed, same_place
from rlmerge.checkpoint.formats import ADAPTER

HEAD = "lm_head.weight"
_EMBEDDINGS = (
    "embed_tokens.weight",
    "wte.weight",
    "word_embeddings.weight",
    "embed_in.weight",
    "tok_embeddings.weight",
)
_CHUNK = 1 << 20


def settle_heads(models: Sequence[Checkpoint], seen: Sequence[dict[str, Source]], warnings: list[str]) -> bool:
    """Agree on one layout of the head for all models, by changing ``seen``, their tensors under the first one's names.

    A stored head is redundant only where the configuration ties it and its bytes equal the embedding in every model;
    then it is dropped. If some model has a head of its own, all others get one, which is their embedding. True if the
    output so has a head that the first model's configuration does not expect.
    """
    name = next((n for tensors in seen for n in tensors if n == HEAD or n.endswith(f".{HEAD}")), None)
    if name is None:
        return False
    tied = models[0].tied_embeddings
    embeddings = [_embedding(tensors, name) for tensors in seen]
    own = [
        tensors[name] if name in tensors and (embedding is None or not _equal(tensors[name], embedding)) else None
        for tensors, embedding in zip(seen, embeddings, strict=True)
    ]
    if tied and not any(own) and all(embedding is not None for embedding in embeddings):
        for tensors in seen:
            tensors.pop(name, None)
        return False
    for model, tensors, embedding in zip(models, seen, embeddings, strict=True):
        if name not in tensors and embedding is not None and model.tied_embeddings:
            tensors[name] = Renamed(embedding, name)
    if not tied or not all(name in tensors for tensors in seen):
        return False
    diverged = [
        m.reference for m, head, e in zip(models, own, embeddings, strict=True) if head is not None and e is not None
    ]
    if not diverged:
        return False
    # An adapter that trained the two tables apart says so itself.
    if any(model.format != ADAPTER for model in models if model.reference in diverged):
        warnings.append(
            f"output heads that differ from the embedding: {', '.join(dict.fromkeys(diverged))}; '{name}' is merged "
            f"and written, with tie_word_embeddings: false ({models[0].reference} ties them)"
        )
    return True


def _embedding(tensors: dict[str, Source], head: str) -> Source | None:
    """The input embedding of a model: the table whose name says so, as large as its head where it has one."""
    shape = tensors[head].shape if head in tensors else None
    for name, source in tensors.items():
        if name.endswith(_EMBEDDINGS) and len(source.shape) == 2 and shape in (None, source.shape):
            return source
    return None


def _equal(a: Source, b: Source) -> bool:
    """Whether two sources have the same bits; reads both until they differ."""
    if a.shape != b.shape or a.dtype is not b.dtype or not (a.is_there and b.is_there):
        return False
    if same_place(a, b):
        return True
    for start in range(0, a.numel, _CHUNK):
        stop = min(a.numel, start + _CHUNK)
        equal = np.array_equal(a.read(start, stop).view(np.uint8), b.read(start, stop).view(np.uint8))
        for source in (a, b):
            source.release(start, stop)
        if not equal:
            return False
    return True
