"""Low-rank adapters: what is trained, what is stored, and that both compute the same."""

from dataclasses import replace

import pytest

from rlmerge.checkpoint import open_checkpoint
from rlmerge.evaluate.landscape.weights import read_weights
from rlmerge_lab.training.arms import ARMS
from rlmerge_lab.training.directory import Lab
from rlmerge_lab.training.language import LanguageEnvironment
from rlmerge_lab.training.lora import add_adapter, merge_adapter, stored_weights
from rlmerge_lab.training.profiles import PROFILES, Profile
from rlmerge_lab.training.queue import jobs_of
from rlmerge_lab.training.train import train_base, train_expert
from support.language import make_language_model

torch = pytest.importorskip("torch")
for name in ("trl", "peft", "reasoning_gym", "transformers"):
    pytest.importorskip(name)

TINY = Profile(
    "tiny",
    "a random model and two steps of low rank",
    seeds=(0,),
    tasks=("gcd", "letter_counting"),
    gym={
        "gcd": {"min_numbers": 2, "max_numbers": 2, "min_value": 2, "max_value": 12},
        "letter_counting": {"min_words": 2, "max_words": 3},
    },
    arms=("rl", "rl-kl", "sft-long"),
    shares={},
    slips=0.0,
    base_steps=0,
    rate=1e-2,
    rl_steps=2,
    rl_prompts=4,
    rl_samples=4,
    sft_batch=8,
    long_steps=2,
    train=24,
    dev=4,
    test=4,
    samples=2,
    answer_tokens=4,
    microbatch=8,
    lora=4,
)
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    root = tmp_path_factory.mktemp("lora")
    made = Lab.create(root / "lab", replace(TINY, model=str(make_language_model(root / "model"))))
    train_base(made, 0, "base", "cpu")
    return made


def adapted(lab):
    """A model with an adapter that changes it."""
    model = lab.environment("cpu").load_model(lab.base(0), ARMS["rl"])
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight += 0.1 * torch.randn_like(weight)
    return model


def test_only_the_adapter_of_linear_layers_is_trained(lab):
    model = lab.environment("cpu").load_model(lab.base(0), ARMS["rl"])
    trained = {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 2 * len(LINEAR)  # two layers, A and B
    assert all(min(shape) == 4 and any(name.split(".lora_")[0].endswith(end) for end in LINEAR)
               for name, shape in trained.items())  # fmt: skip


def test_what_is_stored_computes_what_was_trained(lab):
    model = adapted(lab)
    ids = torch.arange(3, 15)[None]
    expected = model(input_ids=ids).logits
    plain = lab.environment("cpu").new_model(0)
    untouched = plain(input_ids=ids).logits
    weights = stored_weights(model)
    assert weights.keys() == dict(plain.named_parameters()).keys()
    plain.load_state_dict(weights, strict=False)
    assert float((expected - untouched).abs().max()) > 0.1
    # float32 sums of W x + 2 B A x against (W + 2 B A) x, of logits of some units.
    torch.testing.assert_close(plain(input_ids=ids).logits, expected, atol=1e-4, rtol=1e-4)
    merged = dict(merge_adapter(model).named_parameters())
    assert merged.keys() == weights.keys()
    assert all(torch.equal(merged[name], weights[name]) for name in weights)


def test_a_model_without_an_adapter_is_left_alone(lab):
    model = lab.environment("cpu").new_model(0)
    assert merge_adapter(model) is model
    assert all(value is stored_weights(model)[name] for name, value in model.named_parameters())
    assert add_adapter(model, 2).get_base_model() is model


@pytest.mark.parametrize("arm", TINY.arms)
def test_experts_are_whole_models_whose_linear_layers_moved(lab, arm, monkeypatch):
    # A random model never answers right: let it be right now and then.
    monkeypatch.setattr(LanguageEnvironment, "is_right", lambda self, question, said: said[:1] < "P")
    train_expert(lab, 0, arm, "gcd", "x", "cpu")
    path = lab.expert(0, arm, "gcd")
    assert not (path / "adapter_config.json").exists()
    base, expert = (read_weights(each, memory=2**30) for each in (lab.base(0), path))
    assert base.keys() == expert.keys()
    moved = {name for name in base if (base[name] != expert[name]).any()}
    assert moved == {name for name in base if name.split(".")[-2] in LINEAR}
    assert {info.dtype.name for info in open_checkpoint(path).tensors.values()} == {"bfloat16"}
    environment, questions = lab.environment("cpu"), lab.questions("dev")
    stored = environment.load_model(path, ARMS["rl"])
    expected = {task: environment.accuracy(stored, found) for task, found in questions.items()}
    assert lab.manifest(path)["dev"] == expected
    assert lab.manifest(path)["steps"] == 2


def test_the_rank_decides_experts_and_not_the_base(lab):
    def identities(rank):
        changed = replace(lab, profile=replace(lab.profile, lora=rank))
        return {(job.arm, job.task): job.identity for job in jobs_of(changed)}

    one, other = identities(4), identities(8)
    assert {key for key in one if one[key] != other[key]} == set(one) - {("base", None)}


def test_the_smol_profile_fits_a_cpu():
    profile = PROFILES["smol"]
    assert profile.lora and set(profile.tasks) == set(profile.gym)
    assert (profile.rl_prompts * profile.rl_samples) % profile.microbatch == 0
