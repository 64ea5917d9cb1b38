"""Which models a laboratory has, what decides each, and what each waits for."""

from dataclasses import replace

import pytest

from rlmerge.errors import RequestError
from rlmerge_lab.training.arms import ARMS, FIRST_EDITION, STUDENTS
from rlmerge_lab.training.directory import Lab
from rlmerge_lab.training.profiles import Profile
from rlmerge_lab.training.queue import jobs_of

SMALL = Profile(
    "micro",
    "sizes of no meaning",
    seeds=(0,),
    tasks=("brackets",),
    hidden=32,
    layers=2,
    heads=2,
    mlp=64,
    base_steps=400,
    base_batch=32,
    base_rate=5e-3,
    shares={"brackets": 0.8},
    rate=1e-3,
    rl_steps=30,
    rl_prompts=8,
    rl_samples=8,
    sft_limit=40,
    long_steps=40,
    train=150,
    dev=24,
    test=24,
)

FIRST = {
    "base": "4622969a8b4bdc9ade3c1d974247608969dfe846eb84b373bcb9024286bc4f3c",
    "rl": "2ad5f326447f0a4b4a8da424bc80d78c054fb24d13f4c36eb2942d35d98be43f",
    "rl-bf16": "2a3799593cb56a34f2223c6b90b7a1840ac12816b966350698772b7abc9c37a2",
    "rl-positive": "89068c1926961716081558afa6eee75b99616b607cc0757aa1be6fd25fcd96e0",
    "sft": "7966edc0fe94e6423c563bd439f9a23f770e44451fa77f835fa285ea11a02964",
    "sft-high-lr": "d8bcb0fab42d43d8c4818a258985b13f4b402baf28c2728ab717244a24c3c9f7",
    "rft": "965f19c09564f4764f6f2bf437f2f974976c3c0bcf9c5ceec0b6db5e9aeed81a",
    "sft-long": "a9e31bd03f754935f89ca9b41e53634be9453f3002e842eaf9e1912ff392bbfc",
}
"""Identities in the first edition of the laboratory, whose models must stay valid."""


@pytest.fixture
def lab(tmp_path):
    return Lab.create(tmp_path / "lab", SMALL)


def test_models_of_the_first_edition_stay_valid(lab):
    assert lab.arms == FIRST_EDITION
    assert {job.arm: job.identity for job in jobs_of(lab)} == FIRST


def test_new_arms_leave_those_of_the_others_alone_and_differ_from_them(lab):
    grown = replace(lab, profile=replace(lab.profile, arms=tuple(ARMS)))
    found = {job.arm: job.identity for job in jobs_of(grown)}
    assert {name: found[name] for name in FIRST} == FIRST
    assert len(set(found.values())) == len(found) == len(ARMS) + 1


def test_students_wait_for_every_reinforced_expert_of_their_seed(lab):
    profile = replace(SMALL, seeds=(0, 1), tasks=("brackets", "reverse"), arms=("sft", "rl"), students=tuple(STUDENTS))
    jobs = jobs_of(replace(lab, profile=profile))
    assert len(jobs) == 2 * (1 + 2 * 2 + 3) == len({job.identity for job in jobs})
    students = [job for job in jobs if job.arm in STUDENTS]
    for job in students:
        assert job.needs == ((job.seed, "base", None), (job.seed, "rl", "brackets"), (job.seed, "rl", "reverse"))
        assert job.path(lab) == lab.student(job.seed, job.arm) == lab.root / f"seed-{job.seed}" / job.arm
    later = replace(lab, profile=replace(profile, distil_tokens=1))
    changed = {job.identity for job in jobs_of(later)} - {job.identity for job in jobs}
    assert changed == {job.identity for job in jobs_of(later) if job.arm in STUDENTS}


@pytest.mark.parametrize("fields", [{"arms": ("sft",)}, {"arms": ("sft-long",), "students": ("distil",)}])
def test_what_needs_reinforced_experts_is_not_trained_without_them(lab, fields):
    with pytest.raises(RequestError, match="needs the arm 'rl'"):
        jobs_of(replace(lab, profile=replace(SMALL, **fields)))
    assert jobs_of(replace(lab, profile=replace(SMALL, arms=("sft-long",))))
