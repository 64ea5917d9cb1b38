"""The laboratory's tasks: short prompts whose every valid answer can be listed, so that scores are exact."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import permutations, product
from random import Random

from rlmerge.errors import RequestError, did_you_mean

FILLER = "_"
"""Stands before a prompt that is shorter than the others: an ordinary token, not padding."""
PROMPT = 12
"""Characters of every prompt, so that batches of prompts need no padding."""
LETTERS = "abcdefghij"
_PATIENCE = 10_000
"""Draws in a row of prompts that were there already, after which a task is taken to have no others."""


@dataclass(frozen=True, slots=True)
class CharacterQuestion:
    """A prompt of ``PROMPT`` characters, its valid ``answers``, the one a ``teacher`` writes, and a plausible ``slip``.

    The teacher follows one fixed style, as reference solutions do; what a model prefers among the valid answers is
    its own. The slip is a wrong answer for the base to learn now and then, so that reinforcement has something to
    correct.
    """

    task: str
    prompt: str
    answers: tuple[str, ...]
    teacher: str
    slip: str


@dataclass(frozen=True, slots=True)
class Task:
    """A named stream of questions; ``many`` says whether they have more than one valid answer."""

    name: str
    about: str
    many: bool
    draw: Callable[[Random], Iterator[tuple[str, list[str], str]]]

    def questions(self, count: int, seed: int, without: frozenset[str] = frozenset()) -> list[CharacterQuestion]:
        """``count`` questions with different prompts, none of them in ``without``; the same for the same ``seed``."""
        random, found, seen = Random(f"{self.name} {seed}"), list[CharacterQuestion](), set(without)
        misses = 0  # in a row
        for text, answers, slip in self.draw(random):
            prompt = text.rjust(PROMPT, FILLER)
            if prompt in seen:
                misses += 1
                if misses == _PATIENCE:
                    hint = "Ask for fewer questions."
                    raise RequestError(f"task '{self.name}' has no {count} different prompts", hint=hint)
                continue
            misses = 0
            seen.add(prompt)
            found.append(CharacterQuestion(self.name, prompt, tuple(dict.fromkeys(answers)), answers[0], slip))
            if len(found) == count:
                break
        return found


def _reverse(random: Random) -> Iterator[tuple[str, list[str], str]]:
    while True:
        word = "".join(random.choices(LETTERS, k=4))
        if word != word[::-1]:
            yield f"R{word}=", [word[::-1]], word


def _shift(random: Random) -> Iterator[tuple[str, list[str], str]]:
    while True:
        word = "".join(random.choices(LETTERS, k=3))
        step = random.randint(1, 3)

        def moved(by: int, word: str = word) -> str:
            return "".join(LETTERS[(LETTERS.index(letter) + by) % len(LETTERS)] for letter in word)

        yield f"K{word}+{step}=", [moved(step)], moved(step + random.choice((-1, 1)))


def _steps(random: Random) -> Iterator[tuple[str, list[str], str]]:
    """Sums of three one-digit terms of reasoning-gym's ``chain_sum``, answered by a partial sum and the total."""
    for entry in _gym("chain_sum", random, min_terms=3, max_terms=3, min_digits=1, max_digits=1):
        expression = entry["metadata"]["expression"].replace(" ", "")
        terms = [int(term) for term in expression.replace("-", "+-").split("+") if term]
        total = sum(terms)
        # Left to right first: that is how the teacher writes it down.
        partial = [terms[0] + terms[1], terms[0] + terms[2], terms[1] + terms[2]]
        yield (
            f"S{expression}=",
            [f"{part},{total}" for part in partial],
            f"{partial[0]},{total + random.choice((-1, 1))}",
        )


def _make(random: Random) -> Iterator[tuple[str, list[str], str]]:
    """reasoning-gym's ``countdown`` with three numbers, + and −: any order that reaches the target."""
    sizes = {"min_numbers": 3, "max_numbers": 3, "min_value": 1, "max_value": 9, "min_target": 1, "max_target": 27}
    for entry in _gym("countdown", random, operators=("+", "-"), **sizes):
        numbers, target = entry["metadata"]["numbers"], entry["metadata"]["target"]
        reached: list[str] = []
        missed: list[str] = []
        # Largest number first: the teacher's style.
        for order in sorted(set(permutations(numbers)), reverse=True):
            for first, second in product((1, -1), repeat=2):
                value = order[0] + first * order[1] + second * order[2]
                signs = ["+" if sign > 0 else "-" for sign in (first, second)]
                text = f"{order[0]}{signs[0]}{order[1]}{signs[1]}{order[2]}"
                (reached if value == target else missed).append(text)
        yield f"M{','.join(map(str, numbers))}={target}", reached, random.choice(missed)


def _brackets(random: Random) -> Iterator[tuple[str, list[str], str]]:
    """Complete a prefix of three kinds of brackets to a balanced string of twelve characters."""
    while True:
        prefix, open_ = "", ""
        for _ in range(random.randint(7, 8)):
            if open_ and random.random() < 0.35:
                prefix, open_ = prefix + _CLOSING[open_[-1]], open_[:-1]
            else:
                kind = random.choice("([{")
                prefix, open_ = prefix + kind, open_ + kind
        left = 12 - len(prefix)
        if left == len(open_) + 2:  # room for one more pair, of any kind and at any place
            answers = list(_completions(open_, left))
            place = random.randrange(len(answers[0]))
            slip = answers[0][:place] + _OTHER[answers[0][place]] + answers[0][place + 1 :]
            yield f"B{prefix}=", answers, slip


_CLOSING = {"(": ")", "[": "]", "{": "}"}
_OTHER = {"(": "[", "[": "{", "{": "(", ")": "]", "]": "}", "}": ")"}


def _completions(open_: str, length: int) -> Iterator[str]:
    """Every string of ``length`` brackets that closes ``open_``, those that close first before the others."""
    if len(open_) > length:
        return
    if not length:
        yield ""
        return
    if open_:
        yield from (_CLOSING[open_[-1]] + rest for rest in _completions(open_[:-1], length - 1))
    for kind in "([{":
        yield from (kind + rest for rest in _completions(open_ + kind, length - 1))


def _sort(random: Random) -> Iterator[tuple[str, list[str], str]]:
    while True:
        word = "".join(random.sample(LETTERS, 4))
        ordered = "".join(sorted(word))
        yield f"O{word}=", [ordered], ordered[1] + ordered[0] + ordered[2:]


def _largest(random: Random) -> Iterator[tuple[str, list[str], str]]:
    while True:
        numbers = random.sample(range(1, 100), 3)
        low, middle, high = sorted(numbers)
        yield f"L{','.join(map(str, numbers))}=", [str(high)], str(random.choice((low, middle)))


def _gym(name: str, random: Random, **config: object) -> Iterator[dict]:
    """Entries of a reasoning-gym dataset, without end."""
    from reasoning_gym import create_dataset  # its generators take a while to import

    while True:
        yield from create_dataset(name, seed=random.getrandbits(31), size=500, **config)


TASKS = {
    task.name: task
    for task in (
        Task("reverse", "four letters backwards: Rabcd= → dcba", False, _reverse),
        Task("shift", "three letters moved along a circle of ten: Kabj+2= → cdb", False, _shift),
        Task("steps", "a sum by way of a partial sum: S3+4+5= → 7,12 or 8,12 or 9,12", True, _steps),
        Task("make", "reach a number: M2,7,4=9 → 7+4-2 or 4+7-2 or …", True, _make),
        Task("brackets", "complete to twelve balanced brackets: B([()[{= → }]]){} or …", True, _brackets),
        Task("sort", "four letters in order: Odbca= → abcd", False, _sort),
        Task("largest", "the largest of three numbers: L7,21,4= → 21", False, _largest),
    )
}
"""Every task by name."""

CHARACTER_TASKS = ("reverse", "shift", "steps", "make", "brackets")
"""Those that are written in single characters: each has a letter of the vocabulary before its prompts."""


def task(name: str) -> Task:
    """The task called ``name``; RequestError when there is none."""
    if name not in TASKS:
        raise RequestError(f"no task '{name}'", hint=did_you_mean(name, TASKS))
    return TASKS[name]
