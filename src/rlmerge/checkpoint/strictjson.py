"""JSON from files nobody has vouched for: one error type, no silent choice between duplicate keys, bounded memory."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, cast

from rlmerge.checkpoint.disguise import HEAD, refuse_disguise
from rlmerge.errors import CheckpointError
from rlmerge.text import quoted

MAX_VALUES = 2_000_000
"""Most values in a document: an empty list of three bytes takes twenty times as much memory."""

MAX_DEPTH = 100
"""Most lists and objects within one another, far from where Python's own writers of JSON and YAML give up."""

_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class _Twice(Exception):
    """An object holds a key twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Twice(Counter(name for name, _ in pairs).most_common(1)[0][0])
    return found


_decode_unique = json.JSONDecoder(object_pairs_hook=_unique).decode
_decode = json.JSONDecoder().decode


def parse(data: bytes, where: str, *, unique_keys: bool = True) -> Any:
    """``data`` as JSON, or a CheckpointError that starts with ``where``.

    With ``unique_keys`` an object that holds a key twice is refused: readers disagree on which of the two counts, so a
    file can show one thing to a scanner and another to a loader. Strings are always Unicode text: an escaped half of a
    surrogate pair, which could not be written again, is refused. NaN and Infinity, which Python's own writer produces
    and configurations of some models hold, are read.
    """
    refuse_disguise(data[:HEAD], where)
    opened = data.count(b"[") + data.count(b"{")
    if opened + data.count(b",") > MAX_VALUES:
        raise CheckpointError(f"holds more than {MAX_VALUES:,} values", where=where, hint=_DAMAGED)
    try:
        text = data.decode("utf-8")
        content = _decode_unique(text) if unique_keys else _decode(text)
    except UnicodeDecodeError as error:
        raise CheckpointError(f"is not UTF-8 text (byte {error.start})", where=where, hint=_DAMAGED) from None
    except _Twice as error:
        what = f"the key {quoted(error)} appears twice"
        raise CheckpointError(what, where=where, hint="Write the file again.") from None
    except RecursionError:
        raise _too_deep(where) from None
    except ValueError as error:
        raise CheckpointError(f"is not valid JSON ({error})", where=where, hint=_DAMAGED) from None
    if opened > MAX_DEPTH and _is_deep(content):
        raise _too_deep(where)
    if b"\\u" in data and _SURROGATE.search(data) and _has_lone_surrogate(text):
        raise CheckpointError("holds half of a surrogate pair, which is no text", where=where, hint=_DAMAGED)
    return content


def _too_deep(where: str) -> CheckpointError:
    return CheckpointError("is nested too deeply to be JSON of a checkpoint", where=where, hint=_DAMAGED)


def _is_deep(content: Any) -> bool:
    """Whether lists and objects are nested more than ``MAX_DEPTH`` deep."""
    level = [content]
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in _children(parent) if isinstance(child, list | dict)]
        if not level:
            return False
    return True


def _children(parent: Any) -> Iterable[Any]:
    return cast("dict[str, Any]", parent).values() if isinstance(parent, dict) else cast("list[Any]", parent)


def _has_lone_surrogate(text: str) -> bool:
    """Whether a string of the valid JSON ``text`` escapes a high surrogate without a low one after it, or the reverse.

    Outside strings JSON has no backslash, so escapes are looked for everywhere.
    """
    high_ends_at: int | None = None
    for found in _ESCAPE.finditer(text):
        unit = int(found[1], 16) if found[1] else 0
        if (0xDC00 <= unit <= 0xDFFF) != (found.start() == high_ends_at):
            return True
        if high_ends_at is not None and found.start() != high_ends_at:
            return True
        high_ends_at = found.end() if 0xD800 <= unit <= 0xDBFF else None
    return high_ends_at is not None


_DAMAGED = "The file is damaged or is something else; download or save it again."
