"""What is trained and judged, an environment: the scheduling of training and the study know no more of it than this."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, Protocol, TypeVar

from rlmerge.progress import Progress

from .arms import Arm
from .profiles import Profile


class Question(Protocol):
    """A question: its task, the text a model is given, and the answer supervised experts learn."""

    @property
    def task(self) -> str: ...

    @property
    def prompt(self) -> str: ...

    @property
    def teacher(self) -> str: ...


Q = TypeVar("Q", bound=Question)

SPLITS = ("dev", "test", "train")
"""In this order, each without the prompts of those before."""


class Environment(Protocol[Q]):
    """Questions, models and judgement of one kind of laboratory.

    ``pace`` multiplies the steps between two looks at the accuracy of an expert in training, ``answer_tokens`` is how
    many tokens a model may take for its answer and the end.
    """

    @property
    def pace(self) -> int: ...

    @property
    def answer_tokens(self) -> int: ...

    def check(self) -> None:
        """RequestError when something the environment stands on is not there; nothing is written."""
        ...

    def prepare(self, progress: Progress) -> None:
        """Once, before any training: make what all models share, and tell what the user should know."""
        ...

    def processes(self) -> int:
        """How many models are best trained side by side."""
        ...

    def threads(self, processes: int) -> int:
        """How many threads each of so many ``processes`` should use."""
        ...

    def identity(self) -> Mapping[str, Sequence[Any]]:
        """What besides the questions decides a ``base``, an ``rl`` and an ``sft`` expert: JSON values."""
        ...

    def draw_questions(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """The questions of each split as JSON objects, no prompt in two of them."""
        ...

    def parse_question(self, fields: Mapping[str, Any]) -> Q:
        """The question that ``draw_questions`` wrote."""
        ...

    def new_model(self, seed: int) -> Any:
        """What the base of ``seed`` is trained from, in float32."""
        ...

    def load_model(self, path: Path, arm: Arm) -> Any:
        """A stored model to be trained by ``arm``."""
        ...

    def save_model(self, model: Any, out: Path, manifest: Mapping[str, Any]) -> None:
        """Write ``model`` in bfloat16 and its tokenizer to ``out``, which appears complete or not at all."""
        ...

    def tokenizer(self) -> Any:
        """The tokenizer of the model that was made or loaded last; it pads on the left."""
        ...

    def trainer_options(self, model: Any, batch: int) -> dict[str, Any]:
        """Options of a Hugging Face trainer on this machine, for ``batch`` sequences a step."""
        ...

    def base_answer(self, question: Q, random: Random) -> str:
        """An answer for the base to learn, right or not."""
        ...

    def text_example(self, random: Random) -> dict[str, list[int]] | None:
        """A piece of plain text for a base to learn, as ``example`` gives them; None where there is none."""
        ...

    def example(self, question: Q, answer: str) -> dict[str, list[int]]:
        """``input_ids`` and ``labels`` of a supervised example: only the answer and its end are learnt."""
        ...

    def prompt(self, question: Q) -> Any:
        """The prompt as TRL takes it: text, or chat messages."""
        ...

    def is_right(self, question: Q, said: str) -> bool:
        """Whether ``said`` answers the question."""
        ...

    def own_answers(self, model: Any, questions: Sequence[Q], samples: int, seed: int) -> Iterator[tuple[Q, str]]:
        """Every right answer among ``samples`` samples at temperature 1 to each question, as often as it was given."""
        ...

    def accuracy(self, model: Any, questions: Sequence[Q]) -> float:
        """Mean probability of a right answer of the model as it would be stored: in bfloat16."""
        ...


def environment_of(profile: Profile, root: Path, device: str = "auto") -> Environment[Any]:
    """The environment of ``profile`` in the laboratory ``root``; ``device`` is where language models compute."""
    if profile.gym:
        from .language import LanguageEnvironment

        return LanguageEnvironment(profile, root, device)
    if profile.vocabulary:
        from .words import WordEnvironment

        return WordEnvironment(profile, root)
    from .characters import CharacterEnvironment

    return CharacterEnvironment(profile, root)
