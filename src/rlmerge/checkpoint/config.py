"""A model's config.json, read without trust."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlmerge.checkpoint import strictjson
from rlmerge.checkpoint.paths import inside, read_bytes
from rlmerge.errors import CheckpointError

_MAX_CONFIG = 16 * 2**20


def read_config(root: Path) -> Mapping[str, Any] | None:
    """The config.json of a resolved directory, None if it has none; CheckpointError if it is no JSON object."""
    if not (root / "config.json").exists():
        return None
    path = inside(root, "config.json")
    config = strictjson.parse(read_bytes(path, _MAX_CONFIG), str(path), unique_keys=False)
    if not isinstance(config, dict):
        raise CheckpointError("must hold a JSON object", where=str(path), hint="Download or save the model again.")
    return config


def ties_embeddings(config: Mapping[str, Any] | None) -> bool | None:
    """Whether the output head shares the input embedding's weights; None where the configuration does not say."""
    config = config or {}
    text = config.get("text_config")
    for part in (config, text if isinstance(text, dict) else {}):
        if isinstance(part.get("tie_word_embeddings"), bool):
            return part["tie_word_embeddings"]
    return None
