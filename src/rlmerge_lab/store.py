"""What the laboratory keeps on disk: files that are whole or absent, and results named by what decides them."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from rlmerge.errors import RunError

MANIFEST = "lab.json"
"""Says how a model was trained; written last, so that a directory that holds it is complete."""


def plain(value: Any) -> Any:
    """Dataclasses, tuples and mappings as JSON's own types; NaN and infinity become None."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def digest(content: Any) -> str:
    """Identity of plain content: 16 hexadecimal digits."""
    text = json.dumps(plain(content), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_json(file: Path, content: Any) -> None:
    """Write plain ``content`` so that ``file`` is the old one or the new one, never half of it."""
    write_text(file, json.dumps(content, indent=1) + "\n")


def write_text(file: Path, text: str) -> None:
    """Write ``text`` so that ``file`` is the old one or the new one, never half of it."""
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as fresh:
            fresh.write(text)
            fresh.flush()
            os.fsync(fresh.fileno())
        partial.replace(file)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def partial_directory(out: Path, manifest: Mapping[str, Any]) -> Generator[Path]:
    """A directory to fill, which becomes ``out`` with its ``manifest`` once the block ends well."""
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    partial.replace(out)


class Records:
    """A directory of finished results, one small file each, named by the digest of all that decides it.

    A file that is there is complete; a damaged or foreign one is made again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, label: str, identity: Mapping[str, Any]) -> dict[str, Any] | None:
        """What was kept for ``identity``, or None."""
        try:
            content: dict[str, Any] = json.loads(self._path(label, identity).read_text(encoding="utf-8"))
            return content if content["identity"] == plain(identity) and "result" in content else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, label: str, identity: Mapping[str, Any], result: Any, seconds: float) -> dict[str, Any]:
        """Write a result, all of it or nothing; RunError when the disk does not take it."""
        content = {"identity": plain(identity), "seconds": seconds, "result": plain(result)}
        path = self._path(label, identity)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, content)
        except OSError as error:
            hint = "Make room and run the same command again: it continues with what is missing."
            raise RunError(f"a result cannot be kept ({error.strerror})", where=str(path), hint=hint) from error
        return content

    def drop(self, label: str, identity: Mapping[str, Any]) -> None:
        """Forget a result whose companions are gone."""
        self._path(label, identity).unlink(missing_ok=True)

    def _path(self, label: str, identity: Mapping[str, Any]) -> Path:
        return self.folder / f"{label.replace(':', '-')}-{digest(identity)}.json"
