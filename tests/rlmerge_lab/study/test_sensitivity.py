"""Sensitivities of real experts, measured and used."""

import numpy as np
import pytest

from rlmerge.checkpoint.model import open_checkpoint
from rlmerge.checkpoint.sensitivity import load_sensitivity
from rlmerge.evaluate.landscape.weights import read_weights
from rlmerge_lab.study import StudyBudget
from rlmerge_lab.study.candidates import candidates
from rlmerge_lab.study.cases import Source
from rlmerge_lab.study.sensitivity import sensitivity_jobs
from rlmerge_lab.study.tuning import MergeJob, merge_of
from support.laboratory import ExampleLab

pytest.importorskip("torch")
pytest.importorskip("transformers")

TASKS = ("rev", "cnt")


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    lab = ExampleLab(tmp_path_factory.mktemp("lab"), tasks=TASKS, arms=("rl",))
    source = Source(lab, StudyBudget(dev_items=8, test_items=8))
    found = {split: dict.fromkeys(TASKS, 0.5) for split in ("dev", "test")}
    scored = dict.fromkeys(source.score_jobs(), found)
    return source.case(0, "rl", TASKS, scored), lab.root


@pytest.fixture(scope="module")
def measured(case):
    case, root = case
    jobs = sensitivity_jobs(case, 4, root)
    for job in jobs:
        job.run()
    return jobs


def test_what_is_measured_belongs_to_the_expert(case, measured):
    for job, expert in zip(measured, case[0].experts, strict=True):
        sensitivity = load_sensitivity(job.directory, open_checkpoint(expert.path))
        assert (sensitivity.record.sequences, sensitivity.record.mode) == (4, "true")
        assert sensitivity.grams
        before = (job.directory / "MANIFEST.json").stat().st_mtime_ns
        job.run()
        assert (job.directory / "MANIFEST.json").stat().st_mtime_ns == before


def test_a_fisher_average_is_the_one_of_the_formula(case, measured):
    """θ* = Σ F_k θ_k / Σ F_k in float64, and the mean where nothing was measured."""
    family = case[0].family
    (fisher,), _ = candidates(["fisher"], 2, True)
    found = merge_of(case[0], fisher, {}, measured)
    fishers = np.stack([flat(read_weights(job.directory), family) for job in measured])
    thetas, total = family.experts.astype(np.float64), fishers.sum(axis=0)
    weighted = np.divide((fishers * thetas).sum(axis=0), total, out=thetas.mean(axis=0), where=total > 0)
    # Engine and output are float32: two units in the last place of weights below 4.
    assert np.abs(found.delta - (weighted - family.base)).max() < 2 * 4 * 2**-24
    assert np.abs(found.delta).max() > 1e-3


def test_arbitration_with_and_without_sensitivities_differs(case, measured):
    plain, fisher = candidates(["sar_merging"], 2, True)[0]
    alone, measured_ = merge_of(case[0], plain, {}), merge_of(case[0], fisher, {}, measured)
    assert 0.01 < np.mean(alone.delta != measured_.delta) < 0.9


def test_identities_follow_what_was_measured(case, measured):
    (fisher,), _ = candidates(["fisher"], 2, True)
    first = MergeJob(case[0], fisher, 3, 1.0, measured)
    other = MergeJob(case[0], fisher, 3, 1.0, sensitivity_jobs(case[0], 5, case[1]))
    assert first.identity != other.identity


def flat(weights, family):
    return np.concatenate([np.asarray(weights[name], np.float64).reshape(-1) for name in family.config.shapes()])
