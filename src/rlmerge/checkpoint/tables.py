"""Which tensors of a model hold one row a token: the input embedding, the output head and its bias."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from rlmerge.checkpoint.config import find
from rlmerge.checkpoint.source import Source

_EMBEDDING = re.compile(
    r"""(.*\.)?(
        embed_tokens | embed_in | embeddings? | emb | word_embeddings? | tok_embeddings | tokens_embed | wte | shared
    )\.weight""",
    re.VERBOSE,
)
"""Names of the input embedding in Llama, NeoX, Mamba, RWKV, BERT and Bloom, InternLM, GPT, GPT-2, T5."""

_HEAD = re.compile(
    r"""(.*\.)?(
        lm_head | embed_out | output | output_layer | head | lm_head\.decoder | generator_lm_head
      | cls\.predictions(\.decoder)? | predictions\.decoder | vocab_projector | shared_head\.head )\.(weight|bias)""",
    re.VERBOSE,
)

_NEVER = ("_proj.weight", "norm.weight")
"""Ends of most names, which say at once that they are no table's."""

_ELSEWHERE = ("position", "wpe", "token_type", "segment", "vis", "image", "patch", "audio", "speech", "codec", "vq")
"""Parts of names of tables whose rows are no tokens of text."""


def embedding_rows(tensors: Mapping[str, Source], config: Mapping[str, Any] | None) -> int | None:
    """Rows of the input embedding; None where no tensor looks like one.

    Of several with different numbers of rows, those of config.json's ``vocab_size`` count, else the largest.
    """
    return _rows(_candidates(tensors), config)


def _rows(tensors: Mapping[str, Source], config: Mapping[str, Any] | None) -> int | None:
    """The same, of ``_candidates``."""
    rows = {tensor.shape[0] for name, tensor in tensors.items() if _is(name, tensor, _EMBEDDING, 2)}
    if not rows:
        # Some tied models store the shared matrix under the head's name alone.
        rows = {tensor.shape[0] for name, tensor in tensors.items() if _is(name, tensor, _HEAD, 2)}
    stated = find(config or {}, "vocab_size")
    return stated if isinstance(stated, int) and stated in rows else max(rows, default=None)


def vocabulary_tables(tensors: Mapping[str, Source], config: Mapping[str, Any] | None) -> dict[str, Source]:
    """The tables of a model by name, [rows, ...]: all that are called like one and have the embedding's rows."""
    tensors = _candidates(tensors)
    rows = _rows(tensors, config)
    return {
        name: tensor
        for name, tensor in tensors.items()
        if tensor.shape[:1] == (rows,) and (_is(name, tensor, _EMBEDDING, 2) or _is(name, tensor, _HEAD, 1))
    }


def same_table(name: str, tables: Mapping[str, Source], tied: bool = False) -> Source | None:
    """The table of another model that does what ``name`` does in its own, whatever prefix its names have.

    In a ``tied`` model the input embedding is the head, too.
    """
    if name in tables:
        return tables[name]
    found = [other for other in tables if _tail(other) == _tail(name)]
    if not found and tied and name.endswith("lm_head.weight"):
        found = [other for other in tables if not is_head(other)]
    return tables[found[0]] if len(found) == 1 else None


def is_head(name: str) -> bool:
    """Whether a vocabulary table turns hidden states into logits, rather than tokens into them."""
    return _HEAD.fullmatch(name) is not None


def _candidates(tensors: Mapping[str, Source]) -> Mapping[str, Source]:
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(_NEVER)}


def _is(name: str, tensor: Source, pattern: re.Pattern[str], dimensions: int) -> bool:
    return (
        len(tensor.shape) >= dimensions
        and pattern.fullmatch(name) is not None
        and not any(mark in name for mark in _ELSEWHERE)
    )


def _tail(name: str) -> tuple[str, ...]:
    return tuple(name.split(".")[-2:])


def names_of(tables: Iterable[str]) -> str:
    """Names for a message."""
    return ", ".join(f"'{name}'" for name in tables)
