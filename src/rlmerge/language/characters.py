"""How texts are spelled in tokens: character-level tokenizers, of which every token is one character, and others."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from rlmerge.errors import CheckpointError, RequestError
from rlmerge.extras import require

END = "$"
"""The character that ends an answer; an answer counts only if the model stops after it."""


def read_vocabulary(model: Path, size: int | None = None) -> dict[str, int]:
    """Token id of each character, from the ``tokenizer.json`` of a character-level model directory.

    CheckpointError when it has none, tokens of another length, or an id beyond the ``size`` of the model's embedding.
    """
    path = model / "tokenizer.json"
    hint = "Copy it from the base."
    try:
        vocabulary = json.loads(path.read_text(encoding="utf-8"))["model"]["vocab"]
        if not isinstance(vocabulary, dict) or not all(type(index) is int for index in vocabulary.values()):
            raise TypeError("model.vocab does not map tokens to ids")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"holds no vocabulary ({error!r})", where=str(path), hint=hint) from error
    long = next((token for token in vocabulary if len(token) != 1), None)
    if long is not None:
        hint = "Tasks are spelled in characters; score word-level models with transformers or vLLM."
        raise CheckpointError(f"token {long!r} is not a single character", where=str(path), hint=hint)
    beyond = next((token for token, index in vocabulary.items() if index < 0 or index >= (size or index + 1)), None)
    if beyond is not None:
        what = f"the id {vocabulary[beyond]} of token {beyond!r} is not in the model's embedding of {size} rows"
        raise CheckpointError(what, where=str(path), hint="Copy tokenizer.json and config.json from the base.")
    return vocabulary


Encode = Callable[[str], list[int]]
"""Gives the token ids of a text, of which ``END`` ends an answer."""


def read_encoder(model: Path, size: int | None = None) -> Encode:
    """How the tokenizer of a model directory spells a text: one character a token, or as ``tokenizers`` says.

    An answer of several characters a token may have other spellings; the one that counts is the tokenizer's own.
    CheckpointError when there is no ``tokenizer.json`` that can be read, when ``END`` is no special token of it, or
    when an id lies beyond the ``size`` of the model's embedding.
    """
    path = model / "tokenizer.json"
    try:
        return partial(encode, vocabulary=read_vocabulary(model, size))
    except CheckpointError as error:
        if not _spells_end(path):
            raise
        words = _load(path, error)
    beyond = next((token for token, index in words.get_vocab().items() if index >= (size or index + 1)), None)
    if beyond is not None:
        what = f"the id of token {beyond!r} is not in the model's embedding of {size} rows"
        raise CheckpointError(what, where=str(path), hint="Copy tokenizer.json and config.json from the base.")

    def spell(text: str) -> list[int]:
        return words.encode(text, add_special_tokens=False).ids

    return spell


def encode(text: Iterable[str], vocabulary: dict[str, int]) -> list[int]:
    """Token ids of the characters of ``text``; RequestError names one the model has no token for."""
    try:
        return [vocabulary[character] for character in text]
    except KeyError as error:
        hint = f"It knows: {''.join(sorted(vocabulary))}"
        raise RequestError(f"the model has no token for {error.args[0]!r}", where=repr(text), hint=hint) from None


def decode(ids: Iterable[int], vocabulary: dict[str, int]) -> str:
    """The characters of ``ids``; ids that the vocabulary does not know are left out."""
    characters = {index: character for character, index in vocabulary.items()}
    return "".join(characters.get(token, "") for token in ids)


def _spells_end(path: Path) -> bool:
    """Whether a tokenizer file adds ``END`` as a special token: elsewhere it is a dollar sign, and ends nothing."""
    try:
        added = json.loads(path.read_text(encoding="utf-8"))["added_tokens"]
        return any(token["content"] == END and token["special"] is True for token in added)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _load(path: Path, cause: CheckpointError) -> Any:
    try:
        return require("tokenizers").Tokenizer.from_file(str(path))
    except RequestError:
        raise
    except Exception as error:  # the library has no error of its own
        raise CheckpointError(f"cannot be read ({error})", where=str(path), hint="Copy it from the base.") from cause
