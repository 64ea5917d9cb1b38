"""Whether a model reads and ends text as its base does; scores of other inputs are no comparison."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rlmerge.errors import CheckpointError, RequestError
from rlmerge.evaluate.subjects import Subject, read_file

_TOKENIZER = "tokenizer.json"
_TEMPLATE = "chat_template.jinja"
_MANNERS = {
    "tokenizer_config.json": ("add_bos_token", "add_eos_token", "bos_token", "eos_token", "chat_template"),
    "generation_config.json": ("eos_token_id", "do_sample", "temperature", "top_k", "top_p", "repetition_penalty"),
}
"""Settings that change what a harness sends to a model or where it stops, without changing what an id means."""


def check_tokenizers(subjects: Sequence[Subject]) -> list[str]:
    """Warnings about models that read or end text otherwise than the base, the first of ``subjects``.

    RequestError, naming the file, when a model lacks the base's tokenizer or gives a token of the base another id.
    """
    base, *others = subjects
    ours = _files(base)
    warnings: list[str] = []
    for subject in others:
        theirs = _files(subject)
        # A fast tokenizer is complete; the older files beside it are often left out when a model is saved.
        spelling = (_TOKENIZER,) if _TOKENIZER in ours else tuple(name for name in ours if _spells(name))
        for name in spelling:
            if name not in theirs:
                hint = f"Copy it from the base: cp '{base.path / name}' '{subject.path}'"
                raise RequestError("is missing, and the base has it", where=f"{subject.path / name}", hint=hint)
            warnings += _compare(subject, name, ours[name], theirs[name])
        warnings += _compare_manners(base, subject, ours, theirs)
    return warnings


def _compare(subject: Subject, name: str, ours: bytes, theirs: bytes) -> list[str]:
    """What sets two tokenizer files apart; nothing when they differ in spelling alone."""
    where = str(subject.path / name)
    if ours == theirs:
        return []
    if name != _TOKENIZER:
        return [f"{where} differs from the base's; the models may not read the same tokens"]
    mine, other = _vocabulary(ours, where), _vocabulary(theirs, where)
    moved = next((token for token, index in mine.items() if other.get(token, index) != index), None)
    if moved is not None:
        what = f"gives the token {moved!r} the id {other[moved]}, and the base's {mine[moved]}"
        hint = "Copy the base's tokenizer over it if the weights descend from the base; else the two do not compare."
        raise RequestError(what, where=where, hint=hint)
    lost, added = len(mine.keys() - other.keys()), len(other.keys() - mine.keys())
    if lost or added:
        return [f"{where} has {added} tokens more and {lost} fewer than the base's"]
    return (
        [] if json.loads(ours) == json.loads(theirs) else [f"{where} splits or cleans text otherwise than the base's"]
    )


def _compare_manners(
    base: Subject, subject: Subject, ours: Mapping[str, bytes], theirs: Mapping[str, bytes]
) -> list[str]:
    """Settings that differ, a line for each file."""
    mine, other = _manners(base, ours), _manners(subject, theirs)
    changed: dict[str, list[str]] = {}
    for file, setting in sorted(mine.keys() | other.keys()):
        if mine.get((file, setting)) != other.get((file, setting)):
            changed.setdefault(file, []).append(setting)
    return [
        f"{subject.path / file}: {', '.join(settings)} differ{'s' if len(settings) == 1 else ''} from the base's, so "
        "prompts may be built or ended otherwise"
        for file, settings in changed.items()
    ]


def _manners(subject: Subject, files: Mapping[str, bytes]) -> dict[tuple[str, str], Any]:
    """What is set, by file and setting."""
    found: dict[tuple[str, str], Any] = {}
    for file, settings in _MANNERS.items():
        parsed = _parse(files[file], str(subject.path / file)) if file in files else {}
        for setting in settings:
            value = parsed.get(setting)
            if value is not None:  # a special token is written as its text or as an object with it
                found[file, setting] = value.get("content") if isinstance(value, Mapping) else value
    if _TEMPLATE in files:  # newer models keep in a file of its own what older ones keep in the configuration
        found["tokenizer_config.json", "chat_template"] = files[_TEMPLATE].decode(errors="replace")
    return found


def _vocabulary(content: bytes, where: str) -> dict[str, Any]:
    """Id of every token of a ``tokenizer.json``, added ones included."""
    parsed = _parse(content, where)
    try:
        listed: Any = parsed["model"].get("vocab", {})
        pairs: Iterable[tuple[str, Any]] = (
            listed.items() if isinstance(listed, Mapping) else ((entry[0], index) for index, entry in enumerate(listed))
        )
        return {**dict(pairs), **{entry["content"]: entry["id"] for entry in parsed.get("added_tokens") or ()}}
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise CheckpointError(f"is no tokenizer ({error!r})", where=where, hint="Copy it from the base.") from error


def _parse(content: bytes, where: str) -> Mapping[str, Any]:
    try:
        parsed = json.loads(content)
    except ValueError as error:
        raise CheckpointError(f"is not JSON ({error})", where=where, hint="Copy it from the base.") from error
    if not isinstance(parsed, dict):
        raise CheckpointError("must hold a JSON object", where=where, hint="Copy it from the base.")
    return parsed


def _files(subject: Subject) -> dict[str, bytes]:
    """Content of the model's files other than weights that decide how text is read, by name."""
    named = {file.relative_to(subject.path).as_posix(): file for file in subject.checkpoint.side_files}
    return {name: read_file(file) for name, file in named.items() if _spells(name) or name in {*_MANNERS, _TEMPLATE}}


def _spells(name: str) -> bool:
    """Whether a side file holds a vocabulary."""
    return not any(part in name for part in ("config", "processor", "template", "special_tokens_map"))
