"""Tasks in English: what is asked, and that no word names its task."""

import pytest

from rlmerge_lab.training.tasks import CharacterQuestion, task
from rlmerge_lab.training.wording import WORDED, instructions, put_into_words

EXPERTS = ("reverse", "shift", "steps", "make")


@pytest.mark.parametrize("name", WORDED)
def test_every_word_of_an_instruction_stands_in_those_of_another_expert_task(name):
    others = frozenset().union(*(instructions(other) for other in EXPERTS if other != name))
    assert instructions(name) <= others


def test_a_question_becomes_an_instruction_with_the_same_symbols_one_by_one():
    question = CharacterQuestion("shift", "_____Kabj+2=", ("cdb",), "cdb", "bca")
    worded = put_into_words(question)
    assert worded.prompt in (
        "write the letters a b j and go on by 2 :",
        "take the line a b j and put it on by 2 :",
        "from each of the letters a b j go on by 2 :",
    )
    assert (worded.answers, worded.teacher, worded.slip) == (("c d b",), "c d b", "b c a")
    assert put_into_words(question) == worded


def test_numbers_are_spelled_in_digits_and_the_target_stands_apart():
    worded = put_into_words(CharacterQuestion("make", "___M2,7,4=13", ("7+2+4",), "7+2+4", "7+2-4"))
    assert "2 , 7 , 4" in worded.prompt and "1 3" in worded.prompt
    assert worded.answers == ("7 + 2 + 4",)


@pytest.mark.parametrize("name", WORDED)
def test_different_questions_stay_different(name):
    questions = task(name).questions(300, 0)
    assert len({put_into_words(question).prompt for question in questions}) == 300


def test_every_wording_is_used():
    starts = {put_into_words(question).prompt.split()[0] for question in task("reverse").questions(50, 0)}
    assert starts == {"write", "take", "go"}
