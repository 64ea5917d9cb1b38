from pathlib import Path

import pytest

from rlmerge.errors import RequestError
from rlmerge.evaluate.generate import Sample, Sampling
from rlmerge.evaluate.gym import Gym

reasoning_gym = pytest.importorskip("reasoning_gym")


class Pupil:
    """Answers the i-th sample of every prompt with what ``write`` makes of the prompt and i."""

    def __init__(self, write):
        self.write = write
        self.asked = None

    def identity(self):
        return {"backend": "pupil"}

    def generate(self, model, prompts, sampling):
        self.asked = (model, prompts, sampling)
        return [
            [Sample(prompt, self.write(prompt, index), (1,), index == 0) for index in range(sampling.samples)]
            for prompt in prompts
        ]

    def close(self):
        pass


def sums(prompt):
    """The right answer of a chain_sum question."""
    return str(eval(prompt.rstrip(" =").rpartition(":")[2]))


def test_its_own_verifier_judges_every_sample():
    pupil = Pupil(lambda prompt, index: f"so <answer>{sums(prompt)}</answer>" if index < 3 else "<answer>x</answer>")
    average, best = Gym(pupil, Sampling(samples=4, temperature=0.7)).score(Path("m"), ["chain_sum?size=5&seed=3"])
    assert (average.task, average.metric, average.k, average.n) == ("chain_sum?size=5&seed=3", "avg@4", 4, 5)
    assert average.items == (0.75,) * 5 and average.value == 0.75
    assert (best.metric, best.value) == ("pass@4", 1.0)
    assert average.details["stop_rate"] == 0.25
    model, prompts, sampling = pupil.asked
    assert model == Path("m") and sampling.temperature == 0.7
    questions = [entry["question"] for entry in reasoning_gym.create_dataset("chain_sum", size=5, seed=3)]
    style = reasoning_gym.utils.SYSTEM_PROMPTS["default"].strip()
    assert prompts == [f"{style}\n\n{question}" for question in questions]


def test_an_answer_without_tags_counts_only_for_bare_prompts():
    right = Pupil(lambda prompt, index: f" {sums(prompt)} \n")
    assert [score.value for score in Gym(right, Sampling()).score(Path("m"), ["chain_sum?size=3"])] == [0.0]
    (bare,) = Gym(right, Sampling(), prompt="none").score(Path("m"), ["chain_sum?size=3"])
    assert (bare.metric, bare.value) == ("avg@1", 1.0)
    assert right.asked[1][0].startswith("State the final answer")


def test_settings_reach_the_data_set_and_a_limit_cuts_it():
    pupil = Pupil(lambda prompt, index: "")
    Gym(pupil, Sampling(), prompt="none", limit=2).score(Path("m"), ["chain_sum?min_terms=6&max_terms=6"])
    assert len(pupil.asked[1]) == 2
    assert all(prompt.count("+") + prompt.count(" - ") == 5 for prompt in pupil.asked[1])


def test_a_verifier_that_fails_scores_0_and_is_noted(monkeypatch):
    def broken(self, answer, entry):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(type(reasoning_gym.create_dataset("chain_sum", size=1)), "score_answer", broken)
    (score,) = Gym(Pupil(lambda prompt, index: "1"), Sampling()).score(Path("m"), ["chain_sum?size=2"])
    assert score.value == 0.0
    assert score.details["verifier_errors"] == ["ZeroDivisionError: division by zero"] * 2


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("chain_sums", r"unknown reasoning-gym data set 'chain_sums'(.|\n)*Did you mean 'chain_sum'"),
        ("chain_sum?terms=3", r"gym:chain_sum\?terms=3: 'chain_sum' does not take these settings"),
        ("chain_sum?min_terms=9&max_terms=3", "does not take these settings"),
        ("chain_sum?size", "cannot read the settings"),
        ("chain_sum?size=0", r"does not take these settings|holds no questions"),
    ],
)
def test_bad_tasks_are_told_before_anything_is_generated(task, words):
    with pytest.raises(RequestError, match=words):
        Gym(Pupil(None), Sampling()).check([task])


def test_an_unknown_prompt_style():
    with pytest.raises(RequestError, match=r"prompt style 'defualt'(.|\n)*Did you mean 'default'"):
        Gym(Pupil(None), Sampling(), prompt="defualt")


def test_the_identity_has_every_option():
    plain = Gym(Pupil(None), Sampling(samples=4)).identity()
    for change in ({"samples": 1}, {"temperature": 0.0}, {"chat": True}, {"seed": 1}, {"max_new_tokens": 9}):
        assert Gym(Pupil(None), Sampling(**{"samples": 4, **change})).identity() != plain
    for change in ({"limit": 3}, {"prompt": "none"}):
        assert Gym(Pupil(None), Sampling(samples=4), **change).identity() != plain
