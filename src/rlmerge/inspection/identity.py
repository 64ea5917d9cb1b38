"""Are these models of one family? Configuration, tokenizer and chat template, compared file by file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlmerge.checkpoint import Checkpoint

from .evidence import Difference

_MAX_BYTES = 256 * 2**20
_LINEAGE_KEYS = (
    "model_type",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "vocab_size",
    "rope_theta",
    "tie_word_embeddings",
)
"""Entries of config.json that training does not change."""

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
_TEMPLATES = ("chat_template.jinja", "chat_template.json")


@dataclass(frozen=True)
class _Identity:
    config: Mapping[str, Any]
    vocabulary: tuple[int, str] | None
    template: str | None


def compare_identities(checkpoints: Sequence[Checkpoint], names: Sequence[str]) -> tuple[Difference, ...]:
    """Everything in which an expert's configuration, vocabulary or chat template differs from the base's."""
    base, *experts = [_identity(checkpoint) for checkpoint in checkpoints]
    found: list[Difference] = []
    for expert, name in zip(experts, names[1:], strict=True):
        for key in _LINEAGE_KEYS:
            mine, theirs = base.config.get(key), expert.config.get(key)
            if mine is not None and theirs is not None and mine != theirs:
                found.append(Difference(name, "config", f"{key} is {theirs}, the base has {mine}"))
        if base.vocabulary and expert.vocabulary and base.vocabulary != expert.vocabulary:
            sizes = expert.vocabulary[0], base.vocabulary[0]
            detail = f"{sizes[0]} tokens against {sizes[1]}" if sizes[0] != sizes[1] else "same size, other tokens"
            found.append(Difference(name, "vocabulary", detail))
        if base.template and expert.template and base.template != expert.template:
            found.append(Difference(name, "chat template", "differs from the base's"))
    return tuple(found)


def _identity(checkpoint: Checkpoint) -> _Identity:
    return _Identity(checkpoint.config or {}, _vocabulary(checkpoint.path), _template(checkpoint.path))


def _vocabulary(root: Path) -> tuple[int, str] | None:
    """(number of tokens, digest of the token table) of the first tokenizer file there is."""
    for name in _TOKENIZERS:
        content = _read(root / name)
        if content is None:
            continue
        table = _token_table(content) if name.endswith(".json") else None
        if table is None:
            return len(content), hashlib.sha256(content).hexdigest()
        return len(table), hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()
    return None


def _token_table(content: bytes) -> dict[str, Any] | None:
    try:
        parsed = json.loads(content)
        model = parsed.get("model", parsed)
        vocabulary = model.get("vocab", model)
        tokens = vocabulary if isinstance(vocabulary, dict) else {str(t[0]): i for i, t in enumerate(vocabulary)}
        return tokens | {str(t["content"]): t["id"] for t in parsed.get("added_tokens", [])}
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError):
        return None


def _template(root: Path) -> str | None:
    for name in _TEMPLATES:
        content = _read(root / name)
        if content is not None:
            return hashlib.sha256(content).hexdigest()
    content = _read(root / "tokenizer_config.json")
    try:
        template = json.loads(content).get("chat_template") if content else None
    except (ValueError, AttributeError, RecursionError):
        return None
    return None if template is None else json.dumps(template, sort_keys=True)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if path.stat().st_size <= _MAX_BYTES else None
    except OSError:
        return None
