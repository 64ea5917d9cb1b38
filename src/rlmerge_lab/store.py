"""What the laboratory keeps on disk: files that are whole or absent, and results named by what decides them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlmerge.errors import RunError
from rlmerge.jsondata import Entry, JsonStore, plain

MANIFEST = "lab.json"
"""Says how a model was trained; written last, so that a directory that holds it is complete."""


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
        """What was kept for ``identity``, its ``result`` and the ``seconds`` it took; or None."""
        return self._entry(label, identity).load()

    def keep(self, label: str, identity: Mapping[str, Any], result: Any, seconds: float) -> dict[str, Any]:
        """Write a result, all of it or nothing; RunError when the disk does not take it."""
        entry = self._entry(label, identity)
        content = {"seconds": seconds, "result": plain(result)}
        try:
            entry.save(content)
        except OSError as error:
            hint = "Make room and run the same command again: it continues with what is missing."
            raise RunError(f"a result cannot be kept ({error.strerror})", where=str(entry.file), hint=hint) from error
        return content

    def drop(self, label: str, identity: Mapping[str, Any]) -> None:
        """Forget a result whose companions are gone."""
        self._entry(label, identity).drop()

    def _entry(self, label: str, identity: Mapping[str, Any]) -> Entry:
        return JsonStore(self.folder).entry(plain(identity), label)
