"""Reading calibration data: plain text, JSONL of pairs or chats, and reasoning-gym tasks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlmerge.errors import RequestError, did_you_mean
from rlmerge.extras import require

REASONING_GYM = "reasoning-gym:"
REASONING_GYM_SEQUENCES = 64

Message = Mapping[str, Any]
Messages = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """One prompt with, perhaps, what should follow it.

    ``prompt`` is a string or chat messages; ``response`` a string or one assistant message. With ``text`` the prompt is
    plain text whose every token is predicted. ``answer`` is what a reward compares with, and ``entry`` the
    reasoning-gym entry its verifier wants. ``where`` names the file and line in errors.
    """

    where: str
    prompt: str | Messages
    response: str | Message | None = None
    answer: str | None = None
    text: bool = False
    entry: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """Examples, the content digest (sha256) they are identified by, and the verifier of a reasoning-gym task."""

    examples: tuple[Example, ...]
    digest: str
    task: Any = None


def read_data(reference: str, sequences: int | None, seed: int) -> Dataset:
    """The first ``sequences`` examples of ``reference``: ``FILE.jsonl``, a text file, or ``reasoning-gym:TASK[:JSON]``.

    A text file has one sequence a line. A JSONL line is ``{"messages": […]}`` (the last assistant turn is the
    response), ``{"prompt": …, "response", "completion" or "answer": …}`` with strings or messages, where an answer
    beside a response is what rewards compare with, or ``{"text": …}``. Raises RequestError, naming file and line, for
    anything else and for data without examples.
    """
    if reference.startswith(REASONING_GYM):
        return _reasoning_gym(reference, sequences or REASONING_GYM_SEQUENCES, seed)
    path = Path(reference)
    try:
        raw = path.read_bytes()
        content = raw.decode("utf-8-sig")
    except OSError as error:
        hint = "Give a text file, a .jsonl file or reasoning-gym:TASK."
        raise RequestError(f"cannot read the data: {error.strerror}", where=str(path), hint=hint) from None
    except UnicodeDecodeError as error:
        raise RequestError(f"the data is not UTF-8 (byte {error.start})", where=str(path)) from None
    if path.suffix == ".json":
        raise RequestError(
            "one JSON document is not JSONL", where=str(path), hint="Write one object a line, as .jsonl."
        )
    parse = _from_json if path.suffix in (".jsonl", ".ndjson") else _from_text
    # Not str.splitlines: JSON strings may hold U+2028 and friends unescaped.
    lines = ((f"{path}:{number}", line) for number, line in enumerate(content.split("\n"), 1) if line.strip())
    examples = tuple(parse(where, line) for _, (where, line) in zip(_up_to(sequences), lines, strict=False))
    if not examples:
        raise RequestError("the data has no examples", where=str(path), hint="Every line is blank.")
    return Dataset(examples, hashlib.sha256(raw).hexdigest())


def _up_to(limit: int | None) -> Iterator[int]:
    number = 0
    while limit is None or number < limit:
        yield number
        number += 1


def _from_text(where: str, line: str) -> Example:
    return Example(where, line.strip(), text=True)


def _from_json(where: str, line: str) -> Example:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise RequestError(f"not JSON: {error}", where=where, hint="JSONL has one JSON object a line.") from None
    if not isinstance(row, dict):
        raise RequestError("a line of JSONL must be an object", where=where)
    if "text" in row:
        return Example(where, _string(row, "text", where), text=True)
    answer = None if row.get("answer") is None else str(row["answer"])
    if "messages" in row:
        turns = _messages(row["messages"], where)
        if turns[-1]["role"] != "assistant":
            return Example(where, turns, answer=answer)
        if len(turns) == 1:
            raise RequestError("a chat needs a turn before the assistant's", where=where)
        return Example(where, turns[:-1], turns[-1], answer if answer is not None else str(turns[-1]["content"]))
    if "prompt" not in row:
        found = ", ".join(map(str, row)) or "nothing"
        hint = 'Expected "messages", "prompt" with "response", "completion" or "answer", or "text".'
        raise RequestError(f"a line without prompt: its keys are {found}", where=where, hint=hint)
    key = next((key for key in ("response", "completion", "answer") if row.get(key) is not None), "response")
    if isinstance(row["prompt"], list):
        turns = _messages(row["prompt"], where)
        response = _messages(row[key], where)[0] if key in row else None
        return Example(where, turns, response, answer if answer or response is None else str(response["content"]))
    response = _string(row, key, where) if key in row else None
    return Example(where, _string(row, "prompt", where), response, answer if answer is not None else response)


def _string(row: Mapping[str, Any], key: str, where: str) -> str:
    if not isinstance(row[key], str) or not row[key]:
        raise RequestError(f'"{key}" must be a non-empty string', where=where)
    return row[key]


def _messages(value: Any, where: str) -> Messages:
    if isinstance(value, str):
        value = [{"role": "assistant", "content": value}]
    if not isinstance(value, list) or not value or not all(map(_is_message, value)):
        raise RequestError("messages must be a non-empty list of objects with role and content", where=where)
    return tuple(value)


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and {"role", "content"} <= set(value)


def _reasoning_gym(reference: str, size: int, seed: int) -> Dataset:
    gym = require("reasoning_gym")
    name, _, text = reference.removeprefix(REASONING_GYM).partition(":")
    known = gym.factory.DATASETS
    if name not in known:
        raise RequestError(f"reasoning-gym has no task '{name}'", hint=did_you_mean(name, known))
    try:
        config = json.loads(text) if text else {}
        task = gym.create_dataset(name, **{"seed": seed, "size": size, **config})
    except (ValueError, TypeError, AssertionError) as error:
        raise RequestError(f"bad configuration for '{name}': {error}", where=reference) from None
    entries = [task[index] for index in range(size)]
    identity = json.dumps([name, [(entry["question"], entry["answer"]) for entry in entries]])
    examples = tuple(
        Example(f"{name}[{index}]", entry["question"], entry["answer"], entry["answer"], entry=entry)
        for index, entry in enumerate(entries)
    )
    return Dataset(examples, hashlib.sha256(identity.encode()).hexdigest(), task)
