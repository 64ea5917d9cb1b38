"""Reading and editing config.json, which is not trusted.

Values are at the top or in the text model's part; what is not there is not filled with transformers' defaults.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlmerge.checkpoint import strictjson
from rlmerge.checkpoint.paths import inside, read_bytes
from rlmerge.errors import CheckpointError

TEXT_SECTIONS = ("text_config", "llm_config", "language_config")
"""Where models of several modalities keep what describes their language model."""

_SIZES = ("vocab_size", "padded_vocab_size", "n_vocab")
_DTYPES = ("dtype", "torch_dtype")
_QUANTIZATION = ("quantization_config", "compression_config")

_MAX_CONFIG = 16 * 2**20

Config = Mapping[str, Any]


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


def text_section(config: Config) -> Config:
    """The part that describes the language model: the whole of a text model."""
    found = (config.get(name) for name in TEXT_SECTIONS)
    return next((section for section in found if isinstance(section, dict)), config)


def find(config: Config, key: str) -> Any:
    """A value of the language model: from its own section, else from the top; None where neither has it."""
    value = text_section(config).get(key)
    return config.get(key) if value is None else value


def with_values(config: Config, values: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with ``values`` wherever it has their keys, at the top where it has them nowhere."""
    edited = dict(config)
    sections = [name for name in TEXT_SECTIONS if isinstance(config.get(name), dict)]
    for key, value in values.items():
        holders = [name for name in sections if key in config[name]]
        if key in config or not holders:
            edited[key] = value
        for name in holders:
            edited[name] = {**edited[name], key: value}
    return edited


def with_rows(config: Config, rows: int) -> dict[str, Any]:
    """The configuration of a model whose vocabulary tables have ``rows`` rows."""
    present = [key for key in _SIZES if find(config, key) is not None]
    return with_values(config, dict.fromkeys(present or ["vocab_size"], rows))


def with_tied(config: Config, tied: bool) -> dict[str, Any]:
    """The configuration of a model whose output head is, or is not, the input embedding."""
    edited = with_values(config, {"tie_word_embeddings": tied})
    # Where the two parts disagree, versions of transformers differ on which counts.
    return edited | {"tie_word_embeddings": tied}


_DRAFTS = ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_hidden_layers", "mtp_num_layers")


def without_drafts(config: Config) -> dict[str, Any]:
    """The configuration of a model that lost its layers for multi-token prediction."""
    return with_values(config, {key: 0 for key in _DRAFTS if find(config, key)})


def with_dtype(config: Config, name: str) -> dict[str, Any]:
    """The configuration of a model all of whose weights are stored as ``name``, in its parts as at the top."""
    edited = _replaced(config, name)
    return edited if any(key in config for key in _DTYPES) else {**edited, "torch_dtype": name}


def with_quantization(config: Config, original: Config) -> dict[str, Any]:
    """The configuration with what ``original`` says of quantised weights, in the same places."""

    def of(section: Config) -> dict[str, Any]:
        narrow = [key for key in _DTYPES if str(section.get(key)).startswith("float8")]
        return {key: section[key] for key in (*_QUANTIZATION, *narrow) if key in section}

    edited = {**config, **of(original)}
    for name in TEXT_SECTIONS:
        section = original.get(name)
        if isinstance(section, dict) and isinstance(edited.get(name), dict):
            edited[name] = {**edited[name], **of(section)}
    return edited


def render(config: Config) -> bytes:
    """config.json's content."""
    return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def _replaced(config: Config, dtype: str) -> dict[str, Any]:
    edited: dict[str, Any] = {}
    for key, value in config.items():
        if key in _DTYPES:
            edited[key] = dtype
        elif isinstance(value, dict) and key not in _QUANTIZATION:
            edited[key] = _replaced(value, dtype)
        else:
            edited[key] = value
    return edited
