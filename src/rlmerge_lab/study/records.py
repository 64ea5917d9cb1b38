"""Results of a study on disk: one small JSON file each, named by the digest of all that decides it."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlmerge.errors import RunError


class Records:
    """A directory of finished results. A file that is there is complete; a damaged or foreign one is made again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, label: str, identity: Mapping[str, Any]) -> dict[str, Any] | None:
        """What was kept for ``identity``, or None."""
        try:
            content: dict[str, Any] = json.loads(self._path(label, identity).read_text(encoding="utf-8"))
            return content if content["identity"] == _plain(identity) and "result" in content else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, label: str, identity: Mapping[str, Any], result: Any, seconds: float) -> dict[str, Any]:
        """Write a result, all of it or nothing; RunError when the disk does not take it."""
        content = {"identity": _plain(identity), "seconds": seconds, "result": _plain(result)}
        path = self._path(label, identity)
        fresh = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".", delete=False, encoding="utf-8") as file:
                fresh = Path(file.name)
                json.dump(content, file, ensure_ascii=False, allow_nan=False)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        except OSError as error:
            if fresh is not None:
                fresh.unlink(missing_ok=True)
            hint = "Make room and run the same command again: it continues with what is missing."
            raise RunError(f"a result cannot be kept ({error.strerror})", where=str(path), hint=hint) from error
        return content

    def drop(self, label: str, identity: Mapping[str, Any]) -> None:
        """Forget a result whose companions are gone."""
        self._path(label, identity).unlink(missing_ok=True)

    def _path(self, label: str, identity: Mapping[str, Any]) -> Path:
        digest = hashlib.sha256(json.dumps(_plain(identity), sort_keys=True).encode()).hexdigest()
        return self.folder / f"{label.replace(':', '-')}-{digest[:16]}.json"


def _plain(value: Any) -> Any:
    """``value`` as it is after a journey through JSON."""
    return json.loads(json.dumps(value, allow_nan=False))
