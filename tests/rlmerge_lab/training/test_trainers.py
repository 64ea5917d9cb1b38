"""What reaches TRL's loss: the advantages of each arm, and the reference of the KL penalty."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from rlmerge_lab.training.arms import ARMS
from rlmerge_lab.training.characters import CharacterEnvironment
from rlmerge_lab.training.profiles import Profile
from rlmerge_lab.training.tasks import task
from rlmerge_lab.training.trainers import train_reinforced

trl = pytest.importorskip("trl")

PROFILE = Profile(
    "untrained",
    "a random model, two steps",
    seeds=(0,),
    tasks=("reverse",),
    hidden=16,
    layers=1,
    heads=2,
    mlp=32,
    rl_steps=2,
    rl_prompts=4,
    rl_samples=8,
)


class FirstToken(CharacterEnvironment):
    """Takes every answer for right that begins with one of the first tokens, as a random model's do now and then."""

    def is_right(self, question, said):
        return said[:1] in "=+-,:0123456789"


@dataclass
class Seen:
    """What a step's loss was computed from."""

    advantages: list[float]
    beta: float
    reference: dict | None
    penalty: bool


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    path = tmp_path_factory.mktemp("base") / "base"
    environment = FirstToken(PROFILE, Path())
    environment.save_model(environment.new_model(0), path, {})
    return path


def steps(base, arm, monkeypatch):
    """What each step of ``arm`` from ``base`` saw."""
    seen = []
    compute = trl.GRPOTrainer._compute_loss

    def spy(self, model, inputs):
        reference = None if self.ref_model is None else {n: p.clone() for n, p in self.ref_model.named_parameters()}
        seen.append(
            Seen(inputs["advantages"].tolist(), self.beta, reference, inputs.get("ref_per_token_logps") is not None)
        )
        return compute(self, model, inputs)

    environment = FirstToken(PROFILE, Path())
    model = environment.load_model(base, arm)
    with monkeypatch.context() as patch:
        patch.setattr(trl.GRPOTrainer, "_compute_loss", spy)
        train_reinforced(environment, model, task("reverse").questions(8, 0), arm, PROFILE, 0, lambda step: False)
    return seen


def test_a_constant_advantage_is_the_sign_of_grpos(base, monkeypatch):
    plain, constant, positive = (
        steps(base, ARMS[name], monkeypatch)[0].advantages for name in ("rl", "rl-constant", "rl-positive")
    )
    # One seed and one model: the first step of every arm judges the same samples, and TRL shuffles them alike.
    sizes = {round(abs(value), 3) for value in plain if value}
    assert len(sizes) > 2, "every group is right as often: nothing is told apart"
    assert sum(plain) == pytest.approx(0, abs=1e-4)  # 32 float32 values of at most 2.5
    assert constant == [(value > 0) - (value < 0) for value in plain]
    assert sum(constant) != 0
    assert positive == [max(value, 0) for value in plain]


def test_the_kl_penalty_is_against_the_base_on_disk(base, monkeypatch):
    import torch

    environment = FirstToken(PROFILE, Path())
    expected = dict(environment.load_model(base, ARMS["rl"]).named_parameters())
    found = steps(base, ARMS["rl-kl"], monkeypatch)
    assert [step.beta for step in found] == [0.04, 0.04]
    for step in found:
        assert step.penalty
        assert step.reference.keys() == expected.keys()
        assert all(torch.equal(step.reference[name], weight) for name, weight in expected.items())
    assert all(step.reference is None and not step.penalty for step in steps(base, ARMS["rl"], monkeypatch))


def test_a_strong_penalty_keeps_the_model_at_the_base(base, monkeypatch):
    import torch

    environment, moved = FirstToken(PROFILE, Path()), {}
    for weight in (0.0, 1e4):
        arm = replace(ARMS["rl-kl"], kl=weight)
        model = environment.load_model(base, arm)
        before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
        profile = replace(PROFILE, rl_steps=12, rate=1e-2)
        train_reinforced(environment, model, task("reverse").questions(8, 0), arm, profile, 0, lambda step: False)
        after = torch.cat([p.detach().flatten() for p in model.parameters()])
        moved[weight] = float((after - before).norm())
    # Twelve steps of one size in one direction, or to and fro.
    assert moved[1e4] < 0.8 * moved[0.0]
