"""Results as plain data: what JSON can hold, its digest, and small JSON files that are whole or absent."""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, cast

from rlmerge.frozen import frozen


def plain(value: Any) -> Any:
    """``value`` as JSON can hold it: dataclasses are objects, sequences lists, paths text, NaN and infinities None.

    A type with a ``to_dict`` of its own says itself what it is.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if callable(own := getattr(value, "to_dict", None)):
        return plain(own())
    if is_dataclass(value):
        return plain_fields(value)
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, Sequence):
        return [plain(entry) for entry in cast("Sequence[Any]", value)]
    return str(value)


def plain_fields(value: Any) -> dict[str, Any]:
    """The fields of a dataclass as plain data; for the ``to_dict`` of one."""
    return {field.name: plain(getattr(value, field.name)) for field in fields(value)}


def digest(value: Any) -> str:
    """Hex SHA-256 of plain data, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def write_text(file: Path, text: str) -> None:
    """Write ``text`` to disk so that ``file`` is the old one or the new one, never half of it. OSError as it comes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        with fresh.open("x", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(file)
    except BaseException:
        with suppress(OSError):
            fresh.unlink()
        raise


@frozen(slots=True)
class Entry:
    """The place of one kept value; ``about`` is plain data that says what decided it."""

    file: Path
    about: Any

    def load(self) -> Any:
        """The value kept here; None when there is none, or the file is damaged or about something else.

        Nothing of a doubtful file is used: making a value again costs time, a wrong one costs the conclusion.
        """
        try:
            kept = json.loads(self.file.read_text(encoding="utf-8"))
            whole = kept["about"] == self.about and kept["digest"] == digest(kept["value"])
            return kept["value"] if whole else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def save(self, value: Any) -> None:
        """Keep plain data here. OSError when the disk does not take it; an earlier value is then still whole."""
        content = {"about": self.about, "digest": digest(value), "value": value}
        write_text(self.file, json.dumps(content, ensure_ascii=False, allow_nan=False))

    def drop(self) -> None:
        """Forget the value, if there is one."""
        self.file.unlink(missing_ok=True)


@frozen(slots=True)
class JsonStore:
    """A directory of kept values, one file each, named by the digest of what decided them."""

    directory: Path

    def entry(self, about: Any, label: str = "") -> Entry:
        """Where the value that ``about`` decides is kept; ``label`` starts the file's name, for people who look."""
        about = json.loads(json.dumps(about, allow_nan=False))
        name = f"{label.replace(':', '-').replace('/', '-')}-{digest(about)[:16]}" if label else digest(about)
        return Entry(self.directory / f"{name}.json", about)
