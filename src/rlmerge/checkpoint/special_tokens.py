"""Where generation starts and stops: token ids in config.json and generation_config.json, as the output counts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlmerge.checkpoint import strictjson
from rlmerge.checkpoint.config import find, render
from rlmerge.checkpoint.model import Checkpoint
from rlmerge.checkpoint.paths import inside, read_bytes
from rlmerge.checkpoint.token_table import shown
from rlmerge.checkpoint.vocabulary import Member, Vocabulary
from rlmerge.errors import CheckpointError
from rlmerge.frozen import frozen

GENERATION = "generation_config.json"

_KEYS = ("bos_token_id", "eos_token_id", "pad_token_id")
_ID_KEY = re.compile(r"(.*_)?token_(id|ids|index|indices)|suppress_tokens|begin_suppress_tokens")
_UNSAID = ("transformers_version", "_from_model_config")
_MAX = 2**24

Translate = Callable[[Any], Any]


@frozen
class Generation:
    """What the output says of generation: ``edits`` of config.json, generation_config.json as the path of a file to
    copy or as new content, and the ids at which it stops."""

    edits: Mapping[str, Any]
    file: Path | bytes | None
    stops: tuple[int, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]


def generation_of(vocabulary: Vocabulary, leaders: Sequence[Member]) -> Generation:
    """Take what all ``leaders`` say alike, else what the first member (the base) says, and make it fit the vocabulary.

    A stop token that some leader has and another lacks is kept. CheckpointError if a file is malformed.
    """
    base = vocabulary.members[0]
    warnings: list[str] = []
    notes: list[str] = []
    files = {member: _content(vocabulary, member) for member in dict.fromkeys((base, *leaders))}
    speaking = [member for member in leaders if files[member] is not None]
    agreed = bool(speaking) and all(files[member] == files[speaking[0]] for member in speaking)
    followed = bool(speaking) and (files[base] is None or (agreed and files[speaking[0]] != files[base]))
    owner = speaking[0] if followed else base
    edits = _config_edits(vocabulary, leaders)
    stated = _stated_stops(owner, files[owner], edits, base)
    stops = _stops(vocabulary, owner, leaders, stated, warnings)
    content = files[owner]
    if content is None:
        if stops != _ids(stated):
            edits["eos_token_id"] = _folded(stops)
        return Generation(edits, None, tuple(stops), tuple(warnings), ())
    edited = {**content, **_others(vocabulary, owner)}
    if stops != _ids(stated):
        edited["eos_token_id"] = _folded(stops)
    if agreed and owner is not base:
        names = ", ".join(member.name for member in speaking)
        notes.append(f"{GENERATION} is that of {names}" + (", which agree" if len(speaking) > 1 else ""))
    elif not agreed:
        warnings += [text for member in speaking if (text := _lost(member, files[member], edited))]
    original = read_generation(owner.checkpoint) or {}
    same = edited == _said(original)
    path = owner.checkpoint.side_root / GENERATION
    file = path if same else render({**original, **edited})
    return Generation(edits, file, tuple(stops), tuple(warnings), tuple(notes))


def translated(vocabulary: Vocabulary, config: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A configuration of the first member in the output's ids, in all its parts; the keys that found no id there."""
    base = vocabulary.members[0]
    lost: list[str] = []

    def walk(section: Mapping[str, Any]) -> dict[str, Any]:
        edited: dict[str, Any] = {}
        for key, value in section.items():
            if isinstance(value, dict):
                edited[key] = walk(value)
            elif _ID_KEY.fullmatch(key) and _ids(value):
                edited[key] = _translated(vocabulary, base, value)
                if edited[key] is None:
                    lost.append(key)
            else:
                edited[key] = value
        return edited

    return walk(config), lost


def _config_edits(vocabulary: Vocabulary, leaders: Sequence[Member]) -> dict[str, Any]:
    """bos, eos and pad as all leaders that name them have them, where the base's config.json says otherwise."""
    base, donor = vocabulary.members[0], vocabulary.donor
    edits: dict[str, Any] = {}
    for key in _KEYS:
        stated = [_translated(vocabulary, m, find(m.checkpoint.config or {}, key)) for m in leaders]
        stated = [value for value in stated if value is not None]
        mine = find(base.checkpoint.config or {}, key)
        value = stated[0] if stated and all(x == stated[0] for x in stated) else _translated(vocabulary, base, mine)
        id_ = _id(vocabulary, donor, key.removesuffix("_id"))
        named = (value is not None or mine is not None) and (key == "eos_token_id" or not stated)
        if donor is not base and named and id_ is not None and id_ not in _ids(value):
            value = [id_, *value] if isinstance(value, list) else id_
        if value != mine:
            edits[key] = value
    return edits


def _stated_stops(
    owner: Member, content: Mapping[str, Any] | None, edits: Mapping[str, Any], base: Member
) -> int | list[int] | None:
    stated = None if content is None else content.get("eos_token_id")
    return edits.get("eos_token_id", find(base.checkpoint.config or {}, "eos_token_id")) if stated is None else stated


def _stops(
    vocabulary: Vocabulary, owner: Member, leaders: Sequence[Member], stated: Any, warnings: list[str]
) -> list[int]:
    """The output's stop tokens: those stated, that of its tokenizer, and those that only some leaders have."""
    donor, stops = vocabulary.donor, _ids(stated)
    own = _id(vocabulary, donor, "eos_token")
    if own is not None and own not in stops and _role(donor, "eos_token") != _role(owner, "eos_token"):
        stops = [own, *stops]
    for member in leaders:
        missing = [x for x in stop_ids(vocabulary, member) if x not in stops]
        if missing:
            named = ", ".join(shown_id(vocabulary, x) for x in missing)
            warnings.append(f"{member.name} also stops at {named}; the output does too")
            stops += missing
    return stops


def _others(vocabulary: Vocabulary, owner: Member) -> dict[str, int]:
    """bos and pad of the output's tokenizer where generation_config.json comes from a model with others."""
    found: dict[str, int] = {}
    for role in ("bos_token", "pad_token"):
        own = _id(vocabulary, vocabulary.donor, role)
        if own is not None and _role(vocabulary.donor, role) != _role(owner, role):
            found[f"{role}_id"] = own
    return found


def _folded(ids: list[int]) -> int | list[int]:
    return ids[0] if len(ids) == 1 else ids


def stop_ids(vocabulary: Vocabulary, member: Member) -> list[int]:
    """Where a member's generation stops, in the output's ids."""
    stated = (_content(vocabulary, member) or {}).get("eos_token_id")
    if stated is None:
        stated = _translated(vocabulary, member, find(member.checkpoint.config or {}, "eos_token_id"))
    return _ids(stated)


def stated_stops(checkpoint: Checkpoint) -> list[int]:
    """Where a model's generation stops, in its own ids; CheckpointError if its file is malformed."""
    stated = (read_generation(checkpoint) or {}).get("eos_token_id")
    return _ids(find(checkpoint.config or {}, "eos_token_id") if stated is None else stated)


def shown_id(vocabulary: Vocabulary, id: int) -> str:
    """A token for a message."""
    token = next((token for token, other in vocabulary.ids.items() if other == id), None)
    return f"{id}" if token is None else f"{shown(token)} ({id})"


def _lost(member: Member, content: Mapping[str, Any] | None, kept: Mapping[str, Any]) -> str | None:
    """What a generation_config.json says that the output's does not, special tokens apart."""
    said = content or {}
    keys = [key for key in sorted({*said, *kept}) if said.get(key) != kept.get(key) and key not in _KEYS]
    named = ", ".join(f"{key} {_json(said.get(key))} ({_json(kept.get(key))} in the output)" for key in keys)
    return f"{member.name} generates with {named}" if keys else None


def _content(vocabulary: Vocabulary, member: Member) -> dict[str, Any] | None:
    """A member's generation_config.json in the output's ids, without what says nothing of generation."""
    content = read_generation(member.checkpoint)
    if content is None:
        return None
    said = _said(content)
    return {k: _translated(vocabulary, member, v) if _ID_KEY.fullmatch(k) else v for k, v in said.items()}


def _said(content: Mapping[str, Any]) -> dict[str, Any]:
    """Without what versions of transformers add to every file."""
    return {key: x for key, x in content.items() if key not in _UNSAID and x is not None and x is not False}


def read_generation(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """The content of generation_config.json, None without one; CheckpointError if it is no JSON object."""
    root = checkpoint.side_root
    if not (root / GENERATION).exists():
        return None
    path = inside(root, GENERATION)
    content = strictjson.parse(read_bytes(path, _MAX), str(path), unique_keys=False)
    if not isinstance(content, dict):
        raise CheckpointError("must hold a JSON object", where=str(path), hint="Download or save the model again.")
    return content


def _id(vocabulary: Vocabulary, member: Member, role: str) -> int | None:
    token = _role(member, role)
    return vocabulary.ids.get(token) if isinstance(token, str) else None


def _role(member: Member, role: str) -> str | bool | None:
    return member.tokenizer.special.get(role) if member.tokenizer else None


def _ids(value: Any) -> list[int]:
    listed = value if isinstance(value, list) else [value]
    return [x for x in listed if type(x) is int and x >= 0]


def _translated(vocabulary: Vocabulary, member: Member, value: Any) -> Any:
    """Ids of a member as the output's: of the same token text, None or left out of a list where it has none."""
    ids = _ids(value)
    if not ids or not member.ids or member.ids is vocabulary.ids or vocabulary.by_position:
        return value
    wanted = set(ids)
    texts = {id: token for token, id in member.ids.items() if id in wanted}
    # An id that is no token of the member's means nothing elsewhere either.
    found = {id: vocabulary.ids.get(text) for id, text in texts.items()}
    if isinstance(value, list):
        return [found.get(x) if type(x) is int else x for x in value if type(x) is not int or found.get(x) is not None]
    return found.get(value)


def _json(value: Any) -> str:
    return "unset" if value is None else json.dumps(value)[:60]
