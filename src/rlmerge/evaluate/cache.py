"""Scores on disk, found again by the content they came from: model, evaluator with its data and options, and task.

One small JSON file for each model and task under the store's ``scores/``, written whole or not at all. What a harness
writes itself lies beside them, untouched. A run that was killed finds every task it had finished.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlmerge.errors import RunError
from rlmerge.evaluate.scores import Evaluator, Score

SCHEMA = "rlmerge.scores/1"


def default_store() -> Path:
    """``$XDG_CACHE_HOME/rlmerge/eval``, by default below ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rlmerge" / "eval"


@dataclass(frozen=True, slots=True)
class Entry:
    """The place of one model's scores on one task."""

    file: Path
    about: Mapping[str, Any]

    def load(self) -> tuple[Score, ...] | None:
        """The scores kept here; None when there are none, or the file is damaged or says that it is of something else.

        Nothing of a doubtful file is used: scoring again costs time, a wrong score costs the comparison.
        """
        try:
            kept = json.loads(self.file.read_text(encoding="utf-8"))
            if kept["about"] != self.about or kept["digest"] != _digest(kept["scores"]):
                return None
            return tuple(Score.from_dict(score) for score in kept["scores"]) or None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, RunError):
            return None

    def save(self, scores: Sequence[Score]) -> None:
        """Keep ``scores`` here. OSError when the disk does not take them; an earlier file is then still whole."""
        rows = [score.to_dict() for score in scores]
        content = {"about": self.about, "digest": _digest(rows), "scores": rows}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=self.file.stem, suffix=".partial", dir=self.file.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(content, file)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self.file)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise


@dataclass(frozen=True, slots=True)
class Store:
    """A directory that keeps scores under ``scores/`` and what harnesses wrote under a folder for each."""

    directory: Path

    def entry(self, evaluator: Evaluator, model: str, task: str) -> Entry:
        """Where the scores of the model with digest ``model`` on ``task`` are kept."""
        identity = json.loads(json.dumps(evaluator.identity()))
        about = {"schema": SCHEMA, "model": model, "evaluator": evaluator.name, "identity": identity, "task": task}
        return Entry(self.directory / "scores" / f"{_digest(about)}.json", about)


def _digest(value: Any) -> str:
    """Hex SHA-256 of plain data, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
