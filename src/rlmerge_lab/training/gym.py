"""Tasks of reasoning-gym: questions from its generators, answers sampled from weights in memory, and its verifiers."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlmerge.checkpoint.model import open_checkpoint
from rlmerge.errors import RequestError, RunError
from rlmerge.evaluate.generate import Sampling
from rlmerge.evaluate.generate.transformers import write
from rlmerge.extras import require
from rlmerge.language.gym import FULL_SCORE, answer_in, grade, open_dataset
from rlmerge.language.model import failures, load_causal, match_parameters

from .environment import SPLITS

INSTRUCTION = "Give only the final answer."
"""Follows every question: small models explain at length otherwise, and verifiers compare the whole answer."""

_ENTRIES = 1_000_000
_PATIENCE = 1000
"""Entries in a row whose prompts were there already, after which a data set is taken to have no others."""


@dataclass(frozen=True, slots=True)
class GymQuestion:
    """Entry ``index`` of the data set of ``task``, as a prompt, with the data set's own answer."""

    task: str
    prompt: str
    answers: tuple[str, ...]
    index: int

    @property
    def teacher(self) -> str:
        return self.answers[0]

    @classmethod
    def parse(cls, fields: Mapping[str, Any]) -> GymQuestion:
        """The question that ``GymTasks.draw`` wrote."""
        given: dict[str, Any] = {**fields, "answers": tuple(fields["answers"])}
        return cls(**given)


class GymTasks:
    """The data sets named in ``settings``, each with its own; opened when first asked for."""

    def __init__(self, settings: Mapping[str, Mapping[str, Any]]) -> None:
        self._settings = settings
        self._open: dict[str, Any] = {}

    def dataset(self, name: str) -> Any:
        """The data set of a task; RequestError when there is none or it does not take its settings."""
        if name not in self._settings:
            raise RequestError("the profile names no data set for this task", where=f"task '{name}'")
        if name not in self._open:
            settings = {"seed": 0, "size": _ENTRIES, **self._settings[name]}
            self._open[name] = open_dataset(name, settings, f"task '{name}'")
        return self._open[name]

    def draw(self, name: str, counts: Mapping[str, int]) -> dict[str, list[dict[str, Any]]]:
        """So many questions of a task for each split as JSON objects, no prompt twice; RequestError if there are less.

        The verifier needs the whole entry, which is not always JSON: it is found again by its ``index``.
        """
        entries = _different(self.dataset(name), name)
        return {split: [next(entries) for _ in range(counts[split])] for split in SPLITS}

    def right(self, question: GymQuestion, said: str) -> bool:
        """Whether the verifier gives full score to what stands between the last answer tags, or else to all of it.

        RunError when this version of reasoning-gym asks other questions than the one that drew them.
        """
        dataset = self.dataset(question.task)
        entry = dataset[question.index]
        if _prompt(entry) != question.prompt:
            hint = "Install the version the lab was made with, or make a new one with -o."
            raise RunError("this reasoning-gym asks other questions", where=f"task '{question.task}'", hint=hint)
        tagged = answer_in(said)
        return grade(dataset, said.strip() if tagged is None else tagged, entry, []) >= FULL_SCORE

    def share_right(self, questions: Sequence[GymQuestion], said: Sequence[Sequence[str]]) -> float:
        """The share of right ones among all answers ``said`` to each question."""
        right = [self.right(question, text) for question, texts in zip(questions, said, strict=True) for text in texts]
        return sum(right) / len(right)


def _prompt(entry: Mapping[str, Any]) -> str:
    return f"{entry['question'].strip()}\n\n{INSTRUCTION}"


def _different(dataset: Any, name: str) -> Iterator[dict[str, Any]]:
    """Entries whose prompts differ; RequestError when there are no more."""
    seen: set[str] = set()
    last = 0
    for index in range(_ENTRIES):
        entry = dataset[index]
        prompt = _prompt(entry)
        if prompt not in seen:
            seen.add(prompt)
            last = index
            yield {"task": name, "prompt": prompt, "answers": [str(entry["answer"])], "index": index}
        elif index - last == _PATIENCE:
            break
    hint = "Ask for fewer questions, or for settings with more."
    raise RequestError(f"has no more than {len(seen)} different questions", where=f"task '{name}'", hint=hint)


_BATCH = {"cpu": 32, "cuda": 384}
"""Answers written at once, by type of device."""
SIDE_BY_SIDE = 4
"""Processes that share one GPU: writing short answers leaves most of it idle."""


class Sampler:
    """A model of the architecture and tokenizer in ``home``, whose weights can be replaced.

    Whatever is placed is rounded to bfloat16, as experts and merges are stored; a CPU then computes in float32.
    """

    def __init__(self, home: Path, device: Any) -> None:
        self._torch = require("torch")
        self._causal = load_causal(home, device, "float32" if device.type == "cpu" else "bfloat16")
        self._parameters, _ = match_parameters(self._causal.model, open_checkpoint(home))
        self.tokenizer = self._causal.tokenizer
        self.chat = bool(getattr(self.tokenizer, "chat_template", None))

    def place(self, weights: Mapping[str, Any]) -> None:
        """Take ``weights``, tensors of torch or NumPy by stored name; RequestError when one is missing."""
        with failures(self._causal.path), self._torch.no_grad():
            for name, parameter in self._parameters.items():
                if name not in weights:
                    hint = "Place weights of a model like the one the sampler was made for."
                    raise RequestError("the weights lack this tensor", where=name, hint=hint)
                given = weights[name]
                if isinstance(given, np.ndarray):
                    given = self._torch.from_numpy(np.require(given, requirements=("C", "W")))
                parameter.copy_(given.detach().to(self._torch.bfloat16))

    def sample(self, prompts: Sequence[str], samples: int, tokens: int, seed: int) -> list[list[str]]:
        """``samples`` answers to each prompt at temperature 1, of at most ``tokens`` tokens; a greedy one if it is 0.

        The random numbers follow from ``seed`` and the prompt alone, so models are compared on the same ones.
        """
        sampling = Sampling(
            max_new_tokens=tokens,
            temperature=1.0 if samples else 0.0,
            samples=max(samples, 1),
            seed=seed,
            chat=self.chat,
        )
        with _fewer():
            outputs = write(self._causal, prompts, sampling, _BATCH.get(self._causal.device.type, _BATCH["cpu"]))
        return [[sample.text for sample in found] for found in outputs]


@contextmanager
def _fewer() -> Generator[None]:
    """Says, where memory runs out, that it is shared."""
    try:
        yield
    except RunError as error:
        if "memory" not in error.what:
            raise
        hint = "Let fewer models work side by side (--workers 1), or choose a smaller --model."
        raise RunError(error.what, where=error.where, hint=hint) from error
