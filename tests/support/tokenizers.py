"""Small tokenizers on disk: tokenizer.json written by hand, and models whose tables have a row a token."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from support.models import CONFIG, write_model

PLAIN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


def tokenizer_json(tokens: Sequence[str], added: Sequence[str] = (), **rules: object) -> dict[str, object]:
    """tokenizer.json of a tokenizer that splits at blanks; the added tokens are special and follow the others."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": len(tokens) + index, "content": content, **PLAIN} for index, content in enumerate(added)
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {t: i for i, t in enumerate(tokens)}, "unk_token": tokens[0]},
        **rules,
    }


def write_tokenizer(
    folder: Path,
    tokens: Sequence[str],
    added: Sequence[str] = (),
    *,
    chat: str | None = None,
    generation: Mapping[str, object] | None = None,
    **config: object,
) -> Path:
    """A tokenizer's files beside a model: ``config`` goes into tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(tokens, added), indent=1))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    if chat is not None:
        (folder / "chat_template.jinja").write_text(chat)
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


def write_tables(
    folder: Path, rows: int, *, start: float = 0.0, tied: bool = False, dtype: str = "float32", **config: object
) -> Path:
    """A model of an embedding [rows, 2], a head unless ``tied``, and a norm: row i is start + i and start + i + ½."""
    table = start + np.arange(rows)[:, None] + np.array([[0.0, 0.5]])
    tensors = {"model.embed_tokens.weight": table, "model.norm.weight": np.ones(2)}
    if not tied:
        tensors["lm_head.weight"] = -table
    settings = {**CONFIG, "vocab_size": rows, "tie_word_embeddings": tied, **config}
    return write_model(folder, tensors, dtype, settings)
