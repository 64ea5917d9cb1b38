from itertools import permutations, product
from random import Random

import pytest

from rlmerge.errors import RequestError
from rlmerge.language.characters import END
from rlmerge_lab.training.characters import CHARACTERS
from rlmerge_lab.training.small import ANSWER
from rlmerge_lab.training.tasks import CHARACTER_TASKS, FILLER, LETTERS, PROMPT, TASKS, task

DRAWN = {name: task(name).questions(60, 7) for name in TASKS}
ALL = [question for questions in DRAWN.values() for question in questions]


def body(question):
    """The prompt without filler, task letter and what ends it."""
    return question.prompt.lstrip(FILLER)[1:].removesuffix("=")


def balanced(text):
    stack = ""
    for bracket in text:
        if bracket in "([{":
            stack += bracket
        elif not stack or stack[-1] + bracket not in ("()", "[]", "{}"):
            return False
        else:
            stack = stack[:-1]
    return not stack


def test_at_least_five_tasks_of_which_two_have_many_answers():
    assert len(TASKS) >= 5
    assert sum(one.many for one in TASKS.values()) >= 2
    for name, questions in DRAWN.items():
        assert (max(len(question.answers) for question in questions) > 1) == TASKS[name].many


@pytest.mark.parametrize("name", TASKS)
def test_questions_are_short_different_and_spelled_in_the_vocabulary(name):
    questions = DRAWN[name]
    assert len({question.prompt for question in questions}) == 60
    for question in questions:
        assert question.task == name and len(question.prompt) == PROMPT
        assert question.teacher == question.answers[0]
        assert question.slip not in question.answers
        assert len(set(question.answers)) == len(question.answers)
        for text in (question.prompt, question.slip, *question.answers) if name in CHARACTER_TASKS else ():
            assert set(text) <= set(CHARACTERS) - {END}
        # One more token than the answer is left for the end, so that a cut answer is never taken for a valid one.
        assert max(map(len, question.answers)) < ANSWER


@pytest.mark.parametrize("name", TASKS)
def test_a_seed_decides_the_questions_and_prompts_can_be_kept_out(name):
    assert task(name).questions(60, 7) == DRAWN[name]
    assert task(name).questions(60, 8) != DRAWN[name]
    held = frozenset(question.prompt for question in DRAWN[name])
    assert not held & {question.prompt for question in task(name).questions(60, 7, held)}


def test_reverse():
    for question in DRAWN["reverse"]:
        assert question.answers == (body(question)[::-1],)


def test_shift():
    for question in DRAWN["shift"]:
        word, step = body(question).split("+")
        moved = [LETTERS[(LETTERS.index(letter) + int(step)) % 10] for letter in word]
        assert question.answers == ("".join(moved),)


def test_steps_take_any_two_terms_first():
    for question in DRAWN["steps"]:
        expression = body(question)
        terms = [int(sign + digit) for sign, digit in zip("+" + expression[1::2], expression[::2], strict=True)]
        total = sum(terms)
        first = {terms[i] + terms[j] for i in range(3) for j in range(i)}
        assert set(question.answers) == {f"{part},{total}" for part in first}
        assert question.teacher == f"{terms[0] + terms[1]},{total}"


def test_make_accepts_what_the_verifier_of_reasoning_gym_accepts():
    from reasoning_gym import create_dataset

    verifier = create_dataset("countdown", size=1, seed=0, min_numbers=3, max_numbers=3)
    for question in DRAWN["make"][:12]:
        given, target = body(question).split("=")
        numbers = [int(number) for number in given.split(",")]
        entry = {"answer": question.teacher, "metadata": {"numbers": numbers, "target": int(target)}}
        expressions = {f"{a}{x}{b}{y}{c}" for a, b, c in permutations(numbers) for x, y in product("+-", repeat=2)}
        accepted = {text for text in expressions if verifier.score_answer(text, entry) == 1.0}
        assert set(question.answers) == accepted


def test_brackets_lists_every_completion_to_twelve():
    for question in DRAWN["brackets"][:8]:
        prefix = body(question)
        rest = 12 - len(prefix)
        every = {"".join(text) for text in product("()[]{}", repeat=rest) if balanced(prefix + "".join(text))}
        assert set(question.answers) == every
        assert not balanced(prefix + question.slip)


def test_an_unknown_task_and_too_many_questions_are_refused():
    with pytest.raises(RequestError, match="Did you mean 'reverse'"):
        task("revers")
    # Three letters of ten and three steps: 3,000 prompts in all.
    with pytest.raises(RequestError, match="task 'shift' has no 3001 different prompts"):
        task("shift").questions(3_001, 0)
    assert len(task("shift").questions(2_900, 0)) == 2_900


def test_drawing_never_ends_by_itself():
    draw = TASKS["make"].draw(Random(0))
    assert len({next(draw)[0] for _ in range(700)}) > 500  # reasoning-gym gives 500 at a time


def test_sort_puts_four_different_letters_in_order():
    for question in DRAWN["sort"]:
        assert sorted(set(body(question))) == list(question.teacher) and len(question.teacher) == 4


def test_largest_is_the_largest_of_three_different_numbers():
    for question in DRAWN["largest"]:
        numbers = [int(number) for number in body(question).split(",")]
        assert len(set(numbers)) == 3
        assert question.answers == (str(max(numbers)),) and int(question.slip) in numbers
