"""Questions with one right answer, scored exactly: the probability of a correct sample, without sampling."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rlmerge.errors import CheckpointError, RequestError
from rlmerge.evaluate.tiny import TinyLlama

END = "$"
"""The character that ends an answer; an answer counts only if the model stops after it."""

_BATCH = 128


@dataclass(frozen=True, slots=True)
class Item:
    """One question of one task."""

    task: str
    prompt: str
    answer: str


@dataclass(frozen=True, slots=True)
class Scores:
    """How one model answers each item: ``probability`` [N] of a correct sample at temperature 1 (its mean is the exact
    pass@1) and whether the ``greedy`` answer [N] is correct."""

    tasks: np.ndarray
    probability: np.ndarray
    greedy: np.ndarray

    def on(self, task: str) -> Scores:
        """The scores of one task's items, in their order."""
        chosen = self.tasks == task
        return Scores(self.tasks[chosen], self.probability[chosen], self.greedy[chosen])


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with the ends of its 95 % confidence interval."""

    value: float
    low: float
    high: float


def read_items(path: Path) -> tuple[Item, ...]:
    """Items of a JSON Lines file with ``task``, ``prompt`` and ``answer`` on each line."""
    items: list[Item] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise RequestError(f"cannot be read ({error})", where=str(path), hint="Name a JSON Lines file.") from error
    for number, line in enumerate(lines, 1):
        try:
            fields = json.loads(line)
            items.append(Item(fields["task"], fields["prompt"], fields["answer"]))
        except (ValueError, KeyError, TypeError) as error:
            hint = 'Each line holds {"task": …, "prompt": …, "answer": …}.'
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
    """Teacher-force every answer and read off its probability, exp(Σ log p(answer and ``$``)), in one forward pass.

    The greedy answer is right exactly when each token of answer and ``$`` is the most likely one after those before it,
    so the same pass decides it. RequestError when an item holds a character the model has no token for.
    """
    prompts = [_encode(item.prompt, vocabulary) for item in items]
    answers = [_encode(item.answer + END, vocabulary) for item in items]
    probability, greedy = np.zeros(len(items)), np.zeros(len(items), bool)
    # Items of one prompt and answer length fill a rectangle: no padding, hence no mask.
    shapes: dict[tuple[int, int], list[int]] = {}
    for index, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        shapes.setdefault((len(prompt), len(answer)), []).append(index)
    for (start, _), members in shapes.items():
        for first in range(0, len(members), _BATCH):
            chosen = members[first : first + _BATCH]
            targets = np.array([answers[index] for index in chosen])
            tokens = np.concatenate([np.array([prompts[index] for index in chosen]), targets], axis=1)
            logits = model.logits(tokens[:, :-1], start - 1).astype(np.float64)
            taken = np.take_along_axis(_log_softmax(logits), targets[..., None], axis=-1)[..., 0]
            probability[chosen] = np.exp(taken.sum(axis=1))
            greedy[chosen] = (logits.argmax(axis=-1) == targets).all(axis=1)
    return Scores(np.array([item.task for item in items]), probability, greedy)


def answer(model: TinyLlama, prompt: str, vocabulary: dict[str, int], limit: int = 8) -> str:
    """The greedy answer to one prompt, up to and without ``$``, of at most ``limit`` characters."""
    characters = {index: character for character, index in vocabulary.items()}
    tokens = model.greedy(np.array([_encode(prompt, vocabulary)]), limit)[0]
    return "".join(characters[int(token)] for token in tokens).split(END)[0]


def bootstrap(statistic: Callable[..., float], *samples: np.ndarray, resamples: int = 1000, seed: int = 0) -> Interval:
    """``statistic(*samples)`` and its percentile bootstrap interval; ``samples`` [N] are resampled in pairs."""
    count = len(samples[0])
    random = np.random.default_rng(seed)
    draws = [statistic(*(s[pick] for s in samples)) for pick in random.integers(0, count, (resamples, count))]
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(statistic(*samples), float(low), float(high))


def retention(base: np.ndarray, expert: np.ndarray, merged: np.ndarray) -> float:
    """Share of the expert's gain over the base that the merge keeps; each argument [N] scores the same items."""
    return float((merged.mean() - base.mean()) / (expert.mean() - base.mean()))


def _encode(text: Iterable[str], vocabulary: dict[str, int]) -> list[int]:
    try:
        return [vocabulary[character] for character in text]
    except KeyError as error:
        hint = f"It knows: {''.join(sorted(vocabulary))}"
        raise RequestError(f"the model has no token for {error.args[0]!r}", where=repr(text), hint=hint) from None


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
