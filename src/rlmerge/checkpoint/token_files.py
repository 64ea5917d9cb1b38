"""The files of a tokenizer that gets further tokens, or gives its chat template up for another."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rlmerge.checkpoint import strictjson
from rlmerge.checkpoint.chat import Templates
from rlmerge.checkpoint.paths import read_bytes
from rlmerge.checkpoint.token_table import AddedToken, edited
from rlmerge.checkpoint.tokenizer import CONFIG, FAST, MAX_TOKENIZER, Tokenizer

_ADDED = "added_tokens.json"
_MAP = "special_tokens_map.json"
_DECODER = "added_tokens_decoder"


def edited_tokenizer(
    tokenizer: Tokenizer,
    appended: Sequence[tuple[AddedToken, int]],
    templates: Templates | None,
    roles: Mapping[str, str],
    present: Sequence[str],
    *,
    fresh: bool,
) -> dict[str, bytes]:
    """New content, by name, of those files among ``present`` that must change.

    ``appended`` tokens enter tokenizer.json and what repeats its added tokens. With ``templates`` those in
    tokenizer_config.json are taken out, since they are written to files of their own. ``roles`` are special tokens to
    set. A ``fresh`` tokenizer comes from a training run, whose truncation and padding are taken out.
    """
    found: dict[str, bytes] = {}
    if tokenizer.table is not None and FAST in present and (appended or fresh):
        path = tokenizer.root / FAST
        new = [*tokenizer.table.further, *appended] if appended else ()
        original = read_bytes(path, MAX_TOKENIZER)
        data = edited(original, str(path), tokenizer.table.places, new, fresh)
        if data != original:
            found[FAST] = data
    config = dict(tokenizer.config)
    if appended and isinstance(config.get(_DECODER), dict):
        config[_DECODER] = {**config[_DECODER], **{str(id): _entry(token) for token, id in appended}}
    if templates is not None:
        config.pop("chat_template", None)
    config |= roles
    if config != tokenizer.config and CONFIG in present:
        found[CONFIG] = _json(config)
    if roles and _MAP in present:
        found[_MAP] = _json({**_object(tokenizer, _MAP), **roles})
    if appended and _ADDED in present:
        found[_ADDED] = _json({**_object(tokenizer, _ADDED), **{token.content: id for token, id in appended}})
    return found


def _entry(token: AddedToken) -> dict[str, Any]:
    return {"content": token.content, **token.flags()}


def _object(tokenizer: Tokenizer, name: str) -> dict[str, Any]:
    path = tokenizer.root / name
    return strictjson.parse(read_bytes(path, MAX_TOKENIZER), str(path), unique_keys=False)


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
