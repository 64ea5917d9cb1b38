"""Reading data for language models: plain text, JSON Lines of pairs, chats or prompts, and reasoning-gym data sets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlmerge.errors import RequestError, did_you_mean
from rlmerge.frozen import frozen
from rlmerge.language.gym import open_dataset
from rlmerge.recipe.read import read_file

REASONING_GYM = "reasoning-gym:"
REASONING_GYM_SEQUENCES = 64
JSONL = (".jsonl", ".ndjson")

Message = Mapping[str, Any]
Messages = tuple[Message, ...]


@frozen(slots=True)
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


@frozen(slots=True)
class Dataset:
    """Examples, the content digest (sha256) they are identified by, and the verifier of a reasoning-gym task."""

    examples: tuple[Example, ...]
    digest: str
    task: Any = None


def read_data(reference: str, sequences: int | None, seed: int) -> Dataset:
    """The first ``sequences`` examples of ``FILE.jsonl[:TASK]``, of a text file, or of ``reasoning-gym:TASK[:JSON]``.

    With a task only lines with that ``task`` count, as for ``rlmerge eval``. A text file has one sequence a line. A
    JSONL line is ``{"messages": […]}`` (the last assistant turn is the response), ``{"prompt": …, "response",
    "completion" or "answer": …}`` with strings or messages, where an answer beside a response is what rewards compare
    with, or ``{"text": …}``. RequestError, naming file and line, for anything else and for data without examples.
    """
    if reference.startswith(REASONING_GYM):
        return _reasoning_gym(reference, sequences or REASONING_GYM_SEQUENCES, seed)
    path, task = _split_task(reference)
    if path.suffix == ".json":
        hint = "Write one object a line, as .jsonl."
        raise RequestError("one JSON document is not JSONL", where=str(path), hint=hint)
    lines, digest = read_lines(path, "examples")
    if task:
        lines, digest = _of_task(lines, task, path), hashlib.sha256(f"{digest}:{task}".encode()).hexdigest()
    parse = _from_json if path.suffix in JSONL else _from_text
    return Dataset(tuple(parse(where, line) for where, line in lines[:sequences]), digest)


def read_prompts(file: Path) -> tuple[str, ...]:
    """Prompts of a text file, one a line, or of a JSONL file with ``prompt`` on each; RequestError if none."""
    lines, _ = read_lines(file, "prompts")
    if file.suffix not in JSONL:
        return tuple(line for _, line in lines)
    return tuple(string_of(json_object(where, line), "prompt", where) for where, line in lines)


def read_lines(file: Path, kind: str) -> tuple[list[tuple[str, str]], str]:
    """Place (``file:number``) and text of every line that is not blank, and the hex SHA-256 of the file.

    RequestError when the file cannot be read, is not UTF-8, or holds no line of ``kind``, as the message calls them.
    """
    try:
        raw = read_file(file)
    except (OSError, ValueError) as error:  # a null byte in the name
        hint = "Check the path."
        reason = error.strerror if isinstance(error, OSError) else error
        raise RequestError(f"cannot be read: {reason}", where=str(file), hint=hint) from None
    try:
        content = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError(f"is not UTF-8 text (byte {error.start})", where=str(file), hint="Convert it.") from None
    # Not str.splitlines: JSON strings may hold U+2028 and friends unescaped.
    lines = [(f"{file}:{n}", line.rstrip("\r")) for n, line in enumerate(content.split("\n"), 1) if line.strip()]
    if not lines:
        raise RequestError(f"holds no {kind}", where=str(file), hint="Every line is blank.")
    return lines, hashlib.sha256(raw).hexdigest()


def json_object(where: str, line: str) -> dict[str, Any]:
    """The JSON object of one line; RequestError, which names ``where``, for anything else."""
    hint = "JSONL has one JSON object a line."
    try:
        row = json.loads(line)
        if "\\u" in line:  # half of a surrogate pair is no text: tokenizers and digests cannot read it
            json.dumps(row, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise RequestError(f"not JSON: {error}", where=where, hint=hint) from None
    if not isinstance(row, dict):
        raise RequestError("a line of JSONL must be an object", where=where, hint=hint)
    return row


def string_of(row: Mapping[str, Any], key: str, where: str) -> str:
    """The non-empty string under ``key``; RequestError, which names ``where``, without one."""
    if key not in row:
        raise RequestError(f'the line has no "{key}"; its keys are {_keys(row)}', where=where)
    if not isinstance(row[key], str) or not row[key]:
        raise RequestError(f'"{key}" must be a non-empty string', where=where)
    return row[key]


def _split_task(reference: str) -> tuple[Path, str]:
    name, _, task = reference.rpartition(":")
    selects = Path(name).suffix in JSONL and not Path(reference).exists()
    return (Path(name), task) if selects else (Path(reference), "")


def _of_task(lines: list[tuple[str, str]], task: str, path: Path) -> list[tuple[str, str]]:
    """The lines with that ``task``; RequestError when there are none."""
    named = [(str(json_object(*line).get("task")), line) for line in lines]
    found = [line for name, line in named if name == task]
    if not found:
        raise RequestError(f"no line has the task '{task}'", where=str(path), hint=did_you_mean(task, dict(named)))
    return found


def _from_text(where: str, line: str) -> Example:
    return Example(where, line.strip(), text=True)


def _from_json(where: str, line: str) -> Example:
    row = json_object(where, line)
    if "text" in row:
        return Example(where, string_of(row, "text", where), text=True)
    answer = None if row.get("answer") is None else str(row["answer"])
    if "messages" in row:
        turns = _messages(row["messages"], where)
        if turns[-1]["role"] != "assistant":
            return Example(where, turns, answer=answer)
        if len(turns) == 1:
            raise RequestError("a chat needs a turn before the assistant's", where=where)
        return Example(where, turns[:-1], turns[-1], answer if answer is not None else str(turns[-1]["content"]))
    if "prompt" not in row:
        hint = 'Expected "messages", "prompt" with "response", "completion" or "answer", or "text".'
        raise RequestError(f'the line has no "prompt"; its keys are {_keys(row)}', where=where, hint=hint)
    key = next((key for key in ("response", "completion", "answer") if row.get(key) is not None), "response")
    if isinstance(row["prompt"], list):
        turns = _messages(row["prompt"], where)
        response = _messages(row[key], where)[0] if key in row else None
        return Example(where, turns, response, answer if answer or response is None else str(response["content"]))
    response = string_of(row, key, where) if key in row else None
    return Example(where, string_of(row, "prompt", where), response, answer if answer is not None else response)


def _keys(row: Mapping[str, Any]) -> str:
    return ", ".join(map(str, row)) or "nothing"


def _messages(value: Any, where: str) -> Messages:
    if isinstance(value, str):
        value = [{"role": "assistant", "content": value}]
    if not isinstance(value, list) or not value or not all(map(_is_message, value)):
        raise RequestError("messages must be a non-empty list of objects with role and content", where=where)
    return tuple(value)


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and {"role", "content"} <= set(value)


def _reasoning_gym(reference: str, size: int, seed: int) -> Dataset:
    name, _, text = reference.removeprefix(REASONING_GYM).partition(":")
    try:
        config = json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the settings are not JSON: {error}", where=reference) from None
    if not isinstance(config, dict):
        raise RequestError("the settings must be a JSON object", where=reference)
    task = open_dataset(name, {"seed": seed, "size": size, **config}, reference)
    entries = [task[index] for index in range(min(size, len(task)))]
    identity = json.dumps([name, [(entry["question"], entry["answer"]) for entry in entries]])
    examples = tuple(
        Example(f"{name}[{index}]", entry["question"], entry["answer"], entry["answer"], entry=entry)
        for index, entry in enumerate(entries)
    )
    return Dataset(examples, hashlib.sha256(identity.encode()).hexdigest(), task)
