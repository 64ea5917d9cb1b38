import pytest

from rlmerge.errors import RequestError
from rlmerge.language.gym import FULL_SCORE, answer_in, grade, open_dataset

pytest.importorskip("reasoning_gym")


def test_a_data_set_judges_its_own_answers():
    dataset = open_dataset("chain_sum", {"size": 3, "seed": 1}, "here")
    entry = dataset[0]
    notes = []
    assert grade(dataset, entry["answer"], entry, notes) >= FULL_SCORE
    assert grade(dataset, "no number", entry, notes) < FULL_SCORE and notes == []
    assert grade(dataset, None, entry, notes) < FULL_SCORE


def test_a_verifier_that_fails_scores_0_and_leaves_a_note():
    class Broken:
        def score_answer(self, answer, entry):
            raise ZeroDivisionError("x" * 1000)

    notes = []
    assert grade(Broken(), "1", {}, notes) == 0.0
    assert notes[0].startswith("ZeroDivisionError: xxx") and len(notes[0]) == 200


def test_the_answer_stands_between_the_last_tags():
    assert answer_in("<answer>1</answer> no, <answer> 2 </answer>") == "2"
    assert answer_in("2") is None


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("chain_sums", {}, r"here: unknown reasoning-gym data set 'chain_sums'(.|\n)*Did you mean 'chain_sum'"),
        ("chain_sum", {"terms": 3}, r"here: 'chain_sum' does not take these settings: .*terms"),
        ("chain_sum", {"min_terms": 9, "max_terms": 3}, "does not take these settings"),
    ],
)
def test_what_cannot_be_opened_is_named(name, settings, message):
    with pytest.raises(RequestError, match=message):
        open_dataset(name, settings, "here")
