"""Whether a model reads and ends text as its base does; scores of other inputs are no comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlmerge.checkpoint import strictjson
from rlmerge.checkpoint.model import Checkpoint
from rlmerge.checkpoint.paths import read_bytes
from rlmerge.checkpoint.token_table import read_table
from rlmerge.errors import CheckpointError, RequestError
from rlmerge.evaluate.subjects import MAX_SIDE_FILE, Subject

_TOKENIZER = "tokenizer.json"
_TEMPLATE = "chat_template.jinja"
_SETTINGS = {
    "tokenizer_config.json": ("add_bos_token", "add_eos_token", "bos_token", "eos_token", "chat_template"),
    "generation_config.json": ("eos_token_id", "do_sample", "temperature", "top_k", "top_p", "repetition_penalty"),
}
"""What changes what a harness sends to a model or where it stops, without changing what an id means."""
_COPY = "Copy it from the base."


def check_tokenizers(subjects: Sequence[Subject]) -> list[str]:
    """Warnings about models that read or end text otherwise than the base, the first of ``subjects``.

    RequestError, naming the file, when a model lacks the base's tokenizer or gives a token of the base another id.
    """
    base, *others = (subject.checkpoint for subject in subjects)
    ours = _text_files(base)
    warnings: list[str] = []
    for other in others:
        theirs = _text_files(other)
        for name in _vocabulary_files(ours):
            if name not in theirs:
                hint = f"Copy it from the base: cp '{base.path / name}' '{other.path}'"
                raise RequestError("is missing, and the base has it", where=f"{other.path / name}", hint=hint)
            warnings += _compare(other, name, ours[name], theirs[name])
        warnings += _compare_settings(base, other, ours, theirs)
    return warnings


def vocabulary_difference(base: Checkpoint, other: Checkpoint) -> str:
    """How the token ids of ``other`` differ from those of ``base``; empty if they do not, or one keeps no tokenizer."""
    ours, theirs = _text_files(base), _text_files(other)
    name = next((name for name in _vocabulary_files(ours) if name in theirs), None)
    if name is None or ours[name] == theirs[name]:
        return ""
    if name != _TOKENIZER:
        return f"{name} differs"
    mine = read_table(ours[name], str(base.path / name)).ids
    yours = read_table(theirs[name], str(other.path / name)).ids
    if mine == yours:
        return ""
    return "same size, other tokens" if len(mine) == len(yours) else f"{len(yours)} tokens against {len(mine)}"


def _compare(other: Checkpoint, name: str, ours: bytes, theirs: bytes) -> list[str]:
    """What sets two tokenizer files apart; nothing when they differ in spelling alone."""
    where = str(other.path / name)
    if ours == theirs:
        return []
    if name != _TOKENIZER:
        return [f"{where} differs from the base's; the models may not read the same tokens"]
    base, model = read_table(ours, where), read_table(theirs, where)
    mine, yours = base.ids, model.ids
    moved = next((token for token, index in mine.items() if yours.get(token, index) != index), None)
    if moved is not None:
        what = f"gives the token {moved!r} the id {yours[moved]}, and the base's {mine[moved]}"
        hint = "Copy the base's tokenizer over it if the weights descend from the base; else the two do not compare."
        raise RequestError(what, where=where, hint=hint)
    lost, added = len(mine.keys() - yours.keys()), len(yours.keys() - mine.keys())
    if lost or added:
        return [f"{where} has {added} tokens more and {lost} fewer than the base's"]
    same = base.rules == model.rules and base.added == model.added
    return [] if same else [f"{where} splits or cleans text otherwise than the base's"]


def _compare_settings(
    base: Checkpoint, other: Checkpoint, ours: Mapping[str, bytes], theirs: Mapping[str, bytes]
) -> list[str]:
    """Settings that differ, a line for each file."""
    mine, yours = _settings(base, ours), _settings(other, theirs)
    changed: dict[str, list[str]] = {}
    for file, setting in sorted(mine.keys() | yours.keys()):
        if mine.get((file, setting)) != yours.get((file, setting)):
            changed.setdefault(file, []).append(setting)
    return [
        f"{other.path / file}: {', '.join(settings)} differ{'s' if len(settings) == 1 else ''} from the base's, so "
        "prompts may be built or ended otherwise"
        for file, settings in changed.items()
    ]


def _settings(checkpoint: Checkpoint, files: Mapping[str, bytes]) -> dict[tuple[str, str], Any]:
    """What is set, by file and setting."""
    found: dict[tuple[str, str], Any] = {}
    for file, settings in _SETTINGS.items():
        parsed = _parse(files[file], str(checkpoint.path / file)) if file in files else {}
        for setting in settings:
            value = parsed.get(setting)
            if value is not None:  # a special token is written as its text or as an object with it
                found[file, setting] = value.get("content") if isinstance(value, Mapping) else value
    if _TEMPLATE in files:  # newer models keep in a file of its own what older ones keep in the configuration
        found["tokenizer_config.json", "chat_template"] = files[_TEMPLATE].decode(errors="replace")
    return found


def _parse(content: bytes, where: str) -> Mapping[str, Any]:
    parsed = strictjson.parse(content, where, unique_keys=False)
    if not isinstance(parsed, dict):
        raise CheckpointError("must hold a JSON object", where=where, hint=_COPY)
    return parsed


def _text_files(checkpoint: Checkpoint) -> dict[str, bytes]:
    """Content of the model's files other than weights that decide how text is read, by name."""
    named = {file.relative_to(checkpoint.side_root).as_posix(): file for file in checkpoint.side_files}
    return {
        name: read_bytes(file, MAX_SIDE_FILE)
        for name, file in named.items()
        if _is_vocabulary(name) or name in {*_SETTINGS, _TEMPLATE}
    }


def _vocabulary_files(files: Mapping[str, bytes]) -> tuple[str, ...]:
    """The files that hold the vocabulary. A fast tokenizer is complete; older files beside it are often left out."""
    return (_TOKENIZER,) if _TOKENIZER in files else tuple(filter(_is_vocabulary, files))


def _is_vocabulary(name: str) -> bool:
    return not any(part in name for part in ("config", "processor", "template", "special_tokens_map"))
