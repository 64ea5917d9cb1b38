"""Are these models of one family? Configuration, tokens, chat template and stop tokens, compared with the base's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rlmerge.checkpoint import Checkpoint
from rlmerge.checkpoint.align import some_tokens
from rlmerge.checkpoint.compare_config import compare_configs
from rlmerge.checkpoint.special_tokens import stated_stops
from rlmerge.checkpoint.token_table import shown
from rlmerge.checkpoint.tokenizer import Tokenizer, TokenizerReader
from rlmerge.errors import CheckpointError

from .evidence import Difference


def compare_identities(checkpoints: Sequence[Checkpoint], names: Sequence[str]) -> tuple[Difference, ...]:
    """Everything in which an expert's configuration, tokenizer, template or stop tokens differ from the base's.

    ``aspect`` is vocabulary where one id means two tokens, so that rows cannot be merged as they lie.
    """
    found: list[Difference] = []
    reader = TokenizerReader()
    tokenizers: list[Tokenizer | None] = []
    for checkpoint, name in zip(checkpoints, names, strict=True):
        try:
            tokenizers.append(reader.read(checkpoint.side_root))
        except CheckpointError as error:
            found.append(Difference(name, "tokenizer", f"cannot be read: {error.where} {error.what}"))
            tokenizers.append(None)
    base = checkpoints[0]
    for expert, name, tokenizer in zip(checkpoints[1:], names[1:], tokenizers[1:], strict=True):
        found += [Difference(name, "config", detail) for detail in _configs(base, expert)]
        if tokenizers[0] is not None and tokenizer is not None:
            found += [Difference(name, aspect, detail) for aspect, detail in _tokenizers(tokenizers[0], tokenizer)]
        found += [Difference(name, "generation", detail) for detail in _generation(base, expert)]
    return tuple(found)


def _configs(base: Checkpoint, expert: Checkpoint) -> Iterator[str]:
    if base.config is None or expert.config is None:
        return
    for difference in compare_configs(base.config, expert.config):
        if difference.kind != "unsaid":
            ours, theirs = _json(difference.ours), _json(difference.theirs)
            yield f"{difference.key} is {theirs}, the base has {ours}"


def _tokenizers(base: Tokenizer, expert: Tokenizer) -> Iterator[tuple[str, str]]:
    """(aspect, detail) of each difference."""
    if base.table is None or expert.table is None:
        if base.digest != expert.digest or base.file.name != expert.file.name:
            yield "tokenizer", f"{expert.file.name} cannot be compared with the base's {base.file.name}, which differs"
    else:
        yield from _tokens(base.table.ids, expert.table.ids)
        if base.digest != expert.digest and base.file.name == expert.file.name:
            yield "tokenizer", "splits text by other rules than the base's"
    for key in sorted({*base.special, *expert.special}):
        mine, theirs = base.special.get(key), expert.special.get(key)
        if mine != theirs:
            yield "special tokens", f"{key} is {_json(theirs)}, the base has {_json(mine)}"
    mine, theirs = base.templates.default, expert.templates.default
    if theirs is not None and (mine is None or theirs.strip() != mine.strip()):
        yield "chat template", "differs from the base's" if base.templates else "the base has none"


def _tokens(base: Mapping[str, int], expert: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    if base is expert or base == expert:
        return
    known = {id: token for token, id in base.items()}
    moved = [(id, token) for token, id in expert.items() if known.get(id, token) != token]
    if moved:
        id, token = min(moved)
        more = f" ({len(moved):,} such ids)" if len(moved) > 1 else ""
        yield "vocabulary", f"the id {id} is {shown(token)}, in the base {shown(known[id])}{more}"
        return
    added = sorted((token for token in expert if token not in base), key=expert.__getitem__)
    if added:
        yield "tokens", f"has {some_tokens(added)}, which the base lacks"
    lost = sorted((token for token in base if token not in expert), key=base.__getitem__)
    if lost:
        yield "tokens", f"lacks {some_tokens(lost)} of the base"


def _generation(base: Checkpoint, expert: Checkpoint) -> Iterator[str]:
    try:
        mine, theirs = stated_stops(base), stated_stops(expert)
    except CheckpointError as error:
        yield f"cannot be read: {error.where} {error.what}"
        return
    if theirs and set(mine) != set(theirs):
        yield f"stops at {_json(theirs)}, the base at {_json(mine) if mine else 'nothing'}"


def _json(value: Any) -> str:
    if value is None:
        return "unset"
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
