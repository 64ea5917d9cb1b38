"""Questions whose valid answers are listed: the exact probability of a right sample, in NumPy, without sampling."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rlmerge._version import __version__
from rlmerge.errors import RequestError, did_you_mean
from rlmerge.evaluate.answers import AnswerTree, pack
from rlmerge.evaluate.evaluator import Score
from rlmerge.frozen import frozen
from rlmerge.language import tiny
from rlmerge.language.characters import END, Encode, decode, encode, read_encoder
from rlmerge.language.data import json_object, read_lines
from rlmerge.language.tiny import TinyLlama

_BATCH = 128


@frozen(slots=True)
class Item:
    """One question of one task, with every answer that is valid."""

    task: str
    prompt: str
    answers: tuple[str, ...]

    def __post_init__(self) -> None:
        wrong = next((answer for answer in self.answers if END in answer), None)
        if not self.prompt or not self.answers or wrong is not None:
            what = (
                f"the answer {wrong!r} holds {END!r}, which ends answers" if wrong else "needs a prompt and an answer"
            )
            raise RequestError(what, where=repr(self.prompt), hint="Correct the item; the end is added by itself.")


@frozen(slots=True)
class ItemScores:
    """How one model answers each item: ``probability`` [N] of a correct sample at temperature 1 (its mean is the exact
    pass@1), whether the ``greedy`` answer [N] is correct, and the ``loss`` [N], minus the log of the probability."""

    tasks: np.ndarray
    probability: np.ndarray
    greedy: np.ndarray
    loss: np.ndarray

    def on(self, task: str) -> ItemScores:
        """The scores of one task's items, in their order."""
        chosen = self.tasks == task
        return ItemScores(self.tasks[chosen], self.probability[chosen], self.greedy[chosen], self.loss[chosen])


def read_items(path: Path) -> tuple[Item, ...]:
    """Items of a JSON Lines file with ``task``, ``prompt`` and ``answer`` or a list of ``answers`` on each line.

    RequestError, naming file and line, when it cannot be read or a line holds something else.
    """
    return _read_items(path)[0]


def _read_items(path: Path) -> tuple[tuple[Item, ...], str]:
    """The items of a file and its hex SHA-256."""
    lines, digest = read_lines(path, "items")
    return tuple(_item(json_object(where, line), where) for where, line in lines), digest


def _item(fields: dict[str, Any], where: str) -> Item:
    answers = fields["answers"] if "answers" in fields else [fields.get("answer")]
    if "task" not in fields or "prompt" not in fields or not isinstance(answers, list) or None in answers:
        hint = 'Each line holds {"task": …, "prompt": …, "answer": …} or "answers": […].'
        raise RequestError("needs a task, a prompt and an answer", where=where, hint=hint)
    try:
        return Item(str(fields["task"]), str(fields["prompt"]), tuple(map(str, answers)))
    except RequestError as error:
        raise RequestError(error.what, where=where, hint=error.hint) from None


def score(model: TinyLlama, items: Sequence[Item], vocabulary: dict[str, int] | Encode) -> ItemScores:
    """Teacher-force every valid answer and read off the probability of giving any of them, Σ exp(Σ log p(token)).

    ``vocabulary`` has a token for each character, or is a function from text to tokens. Each answer is closed by ``$``,
    and prefixes that answers share are computed once. The greedy answer is right exactly when the most likely token at
    each step spells one of them, so the same pass decides it. RequestError when an item holds a character the model has
    no token for.
    """
    spell = vocabulary if callable(vocabulary) else partial(encode, vocabulary=vocabulary)
    trees = [
        AnswerTree.build(spell(item.prompt), [spell(answer + END) for answer in dict.fromkeys(item.answers)])
        for item in items
    ]
    loss, greedy = np.zeros(len(items)), np.zeros(len(items), bool)
    for packed in pack(trees, _BATCH):
        start = min(trees[index].sources[0] for index in packed.members)
        logits = model.logits(packed.tokens, start, packed.positions, packed.visible).astype(np.float64)
        likeliest, logs = logits.argmax(axis=-1), _log_softmax(logits)
        for row, index in enumerate(packed.members):
            tree = trees[index]
            sources, targets = np.array(tree.sources) - start, np.array(tree.targets)
            total, greedy[index] = tree.read(logs[row, sources, targets], likeliest[row, sources] == targets)
            loss[index] = -total
    return ItemScores(np.array([item.task for item in items]), np.exp(-loss), greedy, loss)


def answer(model: TinyLlama, prompt: str, vocabulary: dict[str, int], limit: int = 8) -> str:
    """The greedy answer to one prompt, up to and without ``$``, of at most ``limit`` characters."""
    tokens = model.greedy(np.array([encode(prompt, vocabulary)]), limit)[0]
    return decode(map(int, tokens), vocabulary).split(END)[0]


@frozen(slots=True)
class Exact:
    """Scores small Llama models on the items of one JSON Lines file.

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
        items, digest = _read_items(file)
        return cls(file, items, digest, limit)

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
            raise RequestError(f"unknown task {unknown!r}", where=str(self.file), hint=did_you_mean(unknown, known))
        network = tiny.load(model)
        spell = read_encoder(model, network.config.vocabulary)
        scores: list[Score] = []
        for task in tasks:
            items = [item for item in self.items if item.task == task][: self.limit]
            found = score(network, items, spell)
            scores.append(Score.of_items(task, "pass@1", found.probability.tolist()))
            scores.append(Score.of_items(task, "greedy", found.greedy.astype(float).tolist()))
        return scores


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
