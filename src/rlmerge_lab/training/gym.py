"""Tasks that are data sets of reasoning-gym: questions drawn from its generators, judged by its verifiers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlmerge.errors import RequestError, RunError
from rlmerge.evaluate.gym import grade, open_dataset
from rlmerge.extras import require
from rlmerge_lab.training.environment import SPLITS

INSTRUCTION = "Give only the final answer."
"""Follows every question: small models explain at length otherwise, and verifiers compare the whole answer."""

_FULL_SCORE = 1.0 - 1e-9
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
            self._open[name] = open_dataset(name, {"seed": 0, "size": _ENTRIES, **self._settings[name]}, name)
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
        tagged = require("reasoning_gym").utils.extract_answer(said)
        return grade(dataset.score_answer, said.strip() if tagged is None else tagged, entry, []) >= _FULL_SCORE

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
