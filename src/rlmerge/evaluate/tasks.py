"""Questions whose valid answers can be listed: the probability of a correct sample, exact and without sampling."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rlmerge.errors import CheckpointError, RequestError
from rlmerge.evaluate.answers import AnswerTree, pack
from rlmerge.evaluate.tiny import TinyLlama

END = "$"
"""The character that ends an answer; an answer counts only if the model stops after it."""

_BATCH = 128


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Scores:
    """How one model answers each item: ``probability`` [N] of a correct sample at temperature 1 (its mean is the exact
    pass@1), whether the ``greedy`` answer [N] is correct, and the ``loss`` [N], minus the log of the probability."""

    tasks: np.ndarray
    probability: np.ndarray
    greedy: np.ndarray
    loss: np.ndarray

    def on(self, task: str) -> Scores:
        """The scores of one task's items, in their order."""
        chosen = self.tasks == task
        return Scores(self.tasks[chosen], self.probability[chosen], self.greedy[chosen], self.loss[chosen])


def read_items(path: Path) -> tuple[Item, ...]:
    """Items of a JSON Lines file with ``task``, ``prompt`` and ``answer`` or a list of ``answers`` on each line."""
    items: list[Item] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise RequestError(f"cannot be read ({error})", where=str(path), hint="Name a JSON Lines file.") from error
    for number, line in enumerate(lines, 1):
        try:
            fields = json.loads(line)
            answers = fields["answers"] if "answers" in fields else [fields["answer"]]
            items.append(Item(str(fields["task"]), str(fields["prompt"]), tuple(map(str, answers))))
        except RequestError as error:
            raise RequestError(error.what, where=f"{path}:{number}", hint=error.hint) from error
        except (ValueError, KeyError, TypeError) as error:
            hint = 'Each line holds {"task": …, "prompt": …, "answer": …} or "answers": […].'
            raise RequestError(f"is no question ({error!r})", where=f"{path}:{number}", hint=hint) from error
    return tuple(items)


def read_vocabulary(model: Path) -> dict[str, int]:
    """Token id of each character, from the ``tokenizer.json`` of a character-level model directory."""
    path = model / "tokenizer.json"
    try:
        vocabulary: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))["model"]["vocab"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"holds no vocabulary ({error!r})", where=str(path), hint="Copy it from the base."
        ) from error
    long = next((token for token in vocabulary if len(token) != 1), None)
    if long is not None:
        hint = "Tasks are spelled in characters; score word-level models with transformers or vLLM."
        raise CheckpointError(f"token {long!r} is not a single character", where=str(path), hint=hint)
    return vocabulary


def score(model: TinyLlama, items: Sequence[Item], vocabulary: dict[str, int]) -> Scores:
    """Teacher-force every valid answer and read off the probability of giving any of them, Σ exp(Σ log p(token)).

    Each answer is closed by ``$``, and prefixes that answers share are computed once. The greedy answer is right
    exactly when the most likely token at each step spells one of them, so the same pass decides it. RequestError when
    an item holds a character the model has no token for.
    """
    trees = [
        AnswerTree.grow(
            encode(item.prompt, vocabulary),
            [encode(answer + END, vocabulary) for answer in dict.fromkeys(item.answers)],
        )
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
    return Scores(np.array([item.task for item in items]), np.exp(-loss), greedy, loss)


def answer(model: TinyLlama, prompt: str, vocabulary: dict[str, int], limit: int = 8) -> str:
    """The greedy answer to one prompt, up to and without ``$``, of at most ``limit`` characters."""
    characters = {index: character for character, index in vocabulary.items()}
    tokens = model.greedy(np.array([encode(prompt, vocabulary)]), limit)[0]
    return "".join(characters[int(token)] for token in tokens).split(END)[0]


def encode(text: Iterable[str], vocabulary: dict[str, int]) -> list[int]:
    """Token ids of the characters of ``text``; RequestError names one the model has no token for."""
    try:
        return [vocabulary[character] for character in text]
    except KeyError as error:
        hint = f"It knows: {''.join(sorted(vocabulary))}"
        raise RequestError(f"the model has no token for {error.args[0]!r}", where=repr(text), hint=hint) from None


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
