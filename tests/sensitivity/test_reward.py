from __future__ import annotations

import pytest

from rlmerge.errors import RequestError
from rlmerge.sensitivity.data import Dataset, Example, read_data
from rlmerge.sensitivity.reward import make_reward

EXAMPLE = Example("f:1", "1+1=", answer="2")
DATA = Dataset((EXAMPLE,), "digest")


def test_exact_ignores_blanks_around_the_answer_only():
    reward = make_reward("exact", DATA)
    assert reward(EXAMPLE, " 2\n")
    assert not reward(EXAMPLE, "22") and not reward(EXAMPLE, "the answer is 2")


def test_a_pattern_without_group_is_the_reward_itself():
    reward = make_reward("regex:^the .* is", Dataset((Example("w", "p"),), ""))
    assert reward(EXAMPLE, "the answer is 7") and not reward(EXAMPLE, "7")


def test_a_patterns_group_must_equal_the_answer_in_its_last_occurrence():
    reward = make_reward(r"regex:#### (-?\d+)", DATA)
    assert (
        reward(EXAMPLE, "#### 7 no, #### 2") and not reward(EXAMPLE, "#### 2 no, #### 7") and not reward(EXAMPLE, "2")
    )


def test_reasoning_gym_verifies_the_tagged_answer():
    pytest.importorskip("reasoning_gym")
    data = read_data("reasoning-gym:chain_sum", 2, 0)
    reward = make_reward("reasoning-gym", data)
    example = data.examples[0]
    assert reward(example, f"<answer>1</answer> or rather <answer>{example.answer}</answer>")
    assert reward(example, f" {example.answer}\n")
    assert not reward(example, "<answer>x</answer>")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("exakt", "Did you mean 'exact'"),
        ("regex:", "unknown reward"),
        ("regex:(", "bad pattern"),
        ("reasoning-gym", "needs data of a reasoning-gym task"),
    ],
)
def test_bad_specifications(spec, message):
    with pytest.raises(RequestError, match=message):
        make_reward(spec, DATA)


@pytest.mark.parametrize("spec", ["exact", "regex:(.)"])
def test_data_without_answers_is_refused_by_line(spec):
    with pytest.raises(RequestError, match=r"f:9: .* needs reference answers"):
        make_reward(spec, Dataset((EXAMPLE, Example("f:9", "p")), ""))
