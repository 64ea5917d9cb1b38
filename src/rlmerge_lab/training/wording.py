"""The character tasks put into words: English instructions that share their tokens, letters and digits one by one."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from random import Random

from .tasks import FILLER, CharacterQuestion

# Every word of an instruction stands in those of at least two of the first four tasks: none gives its task away.
_INSTRUCTIONS = {
    "reverse": (
        "write the line {0} from last to first",
        "take the letters {0} and put the last first",
        "go on in the order of {0} from last to first",
    ),
    "shift": (
        "write the letters {0} and go on by {1}",
        "take the line {0} and put it on by {1}",
        "from each of the letters {0} go on by {1}",
    ),
    "steps": (
        "write the sum {0} and make it by the first sum",
        "take the numbers {0} and write each sum to the last",
        "go on from the first sum to the last sum in the line {0}",
    ),
    "make": (
        "write the numbers {0} in order to make {1}",
        "take the numbers {0} and make the sum {1}",
        "put the numbers {0} in the line of the sum {1}",
    ),
    "sort": (
        "write the line {0} in order",
        "take the letters {0} and put the first in order first",
        "put the letters {0} in order from first to last",
    ),
    "largest": (
        "write the last of the numbers {0}",
        "take the numbers {0} and write the last in order",
        "put the numbers {0} in order and write the last",
    ),
}
"""Three wordings of each task; {0} is what it works on and {1} what else it needs."""

_READ: dict[str, Callable[[str], tuple[str, ...]]] = {
    "shift": lambda body: tuple(body.split("+")),
    "make": lambda body: tuple(body.split("=")),
}

WORDED = tuple(_INSTRUCTIONS)
"""Names of the tasks that have instructions."""


def spaced(text: str) -> str:
    """Every character as a word of its own: then a text has one spelling in tokens."""
    return " ".join(text)


def instructions(task: str) -> frozenset[str]:
    """The words in which ``task`` may be put."""
    return frozenset(re.findall(r"[a-z]+", " ".join(_INSTRUCTIONS[task])))


def put_into_words(question: CharacterQuestion) -> CharacterQuestion:
    """The same question as an English instruction; which of the wordings follows from the question."""
    body = question.prompt.lstrip(FILLER)[1:].rstrip("=")
    found = _READ.get(question.task, lambda body: (body,))(body)
    wording = Random(f"wording {question.task} {body}").choice(_INSTRUCTIONS[question.task])
    return replace(
        question,
        prompt=wording.format(*map(spaced, found)) + " :",
        answers=tuple(map(spaced, question.answers)),
        teacher=spaced(question.teacher),
        slip=spaced(question.slip),
    )
