"""Questions whose valid answers are listed, scored exactly in NumPy: no sampling, no GPU, no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlmerge import __version__
from rlmerge.errors import RequestError, did_you_mean
from rlmerge.evaluate import tiny
from rlmerge.evaluate.scores import Score
from rlmerge.evaluate.tasks import Item, read_items, read_vocabulary, score


@dataclass(frozen=True, slots=True)
class Exact:
    """Scores small character-level Llama models on the items of one JSON Lines file.

    The first score of a task is ``pass@1``: the mean probability that a sample at temperature 1 is a valid answer,
    which is the exact value that sampling estimates. The second, ``greedy``, is the share of right greedy answers.
    """

    file: Path
    items: tuple[Item, ...]
    digest: str
    limit: int | None = None

    name = "exact"

    @classmethod
    def read(cls, file: Path, limit: int | None = None) -> Exact:
        """The evaluator of ``file``, with the first ``limit`` items of each task; RequestError when it holds none."""
        items = read_items(file)
        if not items:
            raise RequestError("holds no items", where=str(file), hint="Name a JSON Lines file with a line an item.")
        return cls(file, items, hashlib.sha256(file.read_bytes()).hexdigest(), limit)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks of the file, in the order in which they first occur."""
        return tuple(dict.fromkeys(item.task for item in self.items))

    def identity(self) -> dict[str, object]:
        """Digest of the items, how many of them, and the version of the arithmetic."""
        return {"data": self.digest, "limit": self.limit, "rlmerge": __version__}

    def score(self, model: Path, tasks: Sequence[str]) -> list[Score]:
        """``pass@1`` and ``greedy`` of each task; RequestError for an unknown task or a model that NumPy cannot run."""
        known = self.tasks
        unknown = next((task for task in tasks if task not in known), None)
        if unknown is not None:
            raise RequestError(f"has no task {unknown!r}", where=str(self.file), hint=did_you_mean(unknown, known))
        network, vocabulary = tiny.load(model), read_vocabulary(model)
        scores: list[Score] = []
        for task in tasks:
            items = [item for item in self.items if item.task == task][: self.limit]
            found = score(network, items, vocabulary)
            scores.append(Score.of_items(task, "pass@1", found.probability.tolist()))
            scores.append(Score.of_items(task, "greedy", found.greedy.astype(float).tolist()))
        return scores
