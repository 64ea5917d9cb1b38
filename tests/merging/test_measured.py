"""Measured inputs beside the models: whose they are, what they must hold, and what identifies them."""

import dataclasses

import numpy as np
import pytest
import yaml

import rlmerge
from rlmerge.errors import CheckpointError, RecipeError, RequestError
from support.measured import write_measured
from support.models import write_model

TENSORS = {"a": np.ones((4, 5)), "b": np.zeros(5), "steps": np.arange(3)}
FISHER = {"a": np.full((4, 5), 0.5), "b": np.ones(5)}


@pytest.fixture
def folder(tmp_path):
    """A base, two experts that differ from it, and what was measured on each."""
    for index, name in enumerate(("base", "e0", "e1")):
        write_model(tmp_path / name, TENSORS | {"a": TENSORS["a"] + index / 8})
    for k in range(2):
        write_measured(tmp_path / f"f{k}", tmp_path / f"e{k}", FISHER)
    return tmp_path


def recipe(folder, method="sar_merging", inputs=("f0", "f1"), **parameters):
    models = [
        {"model": str(folder / f"e{k}")} | ({"sensitivity": str(folder / name)} if name else {})
        for k, name in enumerate(inputs)
    ]
    return {"merge_method": method, "base_model": str(folder / "base"), "models": models, "parameters": parameters}


def test_every_merged_tensor_gets_its_sensitivities(folder):
    plan = rlmerge.plan(recipe(folder))
    assert [info.shape for info in plan.jobs["a"].extras["sensitivity"]] == [(4, 5), (4, 5)]
    assert [info.file.path.parent.name for info in plan.jobs["b"].extras["sensitivity"]] == ["f0", "f1"]
    assert plan.jobs["steps"].extras == {}
    assert plan.to_dict()["inputs"] == {"sensitivity": [str(folder / "f0"), str(folder / "f1")]}
    without = rlmerge.plan(recipe(folder, inputs=("", "")))
    assert plan.bytes_read - without.bytes_read == 2 * 25 * 4
    assert without.jobs["a"].extras == {}


def test_a_sensitivity_of_another_model_is_refused(folder):
    with pytest.raises(RecipeError) as caught:
        rlmerge.plan(recipe(folder, inputs=("f1", "f0")))
    first, second = caught.value.problems
    assert f"was measured on another model ('{folder / 'e1'}'" in first.what and "not on" in first.what
    assert second.where.endswith("f0/sensitivity.json")


def test_missing_tensors_are_named(folder):
    write_measured(folder / "f1", folder / "e1", {"b": np.ones(5)})
    with pytest.raises(CheckpointError, match=r"f1: lacks 1 tensors: a"):
        rlmerge.plan(recipe(folder))


def test_a_directory_that_is_none(folder):
    with pytest.raises(CheckpointError, match=r"has no sensitivity\.json"):
        rlmerge.plan(recipe(folder, inputs=("f0", "e1")))
    with pytest.raises(RequestError, match="nowhere"):
        rlmerge.plan(recipe(folder, inputs=("f0", "nowhere")))


def test_all_models_or_none(folder):
    with pytest.raises(RecipeError, match="has no `sensitivity`, but another model has one"):
        rlmerge.plan(recipe(folder, inputs=("f0", "")))


def test_a_tensor_that_was_not_measured_goes_without(folder):
    write_measured(folder / "f0", folder / "e0", {"a": FISHER["a"]}, uncovered=["b"])
    plan = rlmerge.plan(recipe(folder))
    assert set(plan.jobs["a"].extras) == {"sensitivity"}
    assert plan.jobs["b"].extras == {}
    result = rlmerge.merge(recipe(folder), folder / "out", cache=False)
    assert "no sensitivities are given, so in a conflict the largest change wins (1 of 2 tensors)" in result.warnings


def test_what_was_measured_on_the_base_is_taken_when_the_recipe_says_so(folder):
    write_measured(folder / "f", folder / "base", FISHER)
    with pytest.raises(RecipeError, match="was measured on another model"):
        rlmerge.plan(recipe(folder, inputs=("f", "f")))
    plan = rlmerge.plan(recipe(folder, inputs=("f", "f"), measured_on="base"))
    assert len(plan.jobs["a"].extras["sensitivity"]) == 2


def test_methods_that_cannot_do_without_say_what_to_do(folder):
    for method, parameters in (("fisher", {}), ("scf_rkl", {"importance": "fisher"})):
        with pytest.raises(RequestError, match=f"'{method}' needs the sensitivity of every model here") as caught:
            rlmerge.plan(recipe(folder, method, inputs=("", ""), **parameters))
        assert "Write `sensitivity: DIR` beside each model, made by: rlmerge sensitivity" in caught.value.hint
    rlmerge.plan(recipe(folder, "scf_rkl", inputs=("", "")))


def test_content_not_place_identifies_an_input(folder):
    digest = rlmerge.plan(recipe(folder, inputs=("", ""))).digest
    measured = rlmerge.plan(recipe(folder)).digest
    write_measured(folder / "f1", folder / "e1", FISHER | {"b": np.full(5, 2.0)})
    changed = rlmerge.plan(recipe(folder)).digest
    assert len({digest, measured, changed}) == 3


def test_the_lock_file_holds_directories_and_fingerprints(folder):
    result = rlmerge.merge(recipe(folder), folder / "out", cache=False)
    lock = yaml.safe_load((result.out / "rlmerge.lock.yaml").read_text())
    assert [entry["directory"] for entry in lock["sensitivity"]] == [str(folder / "f0"), str(folder / "f1")]
    assert all(len(entry["fingerprint"]) == 32 for entry in lock["sensitivity"])
    assert lock["recipe"]["models"][0]["sensitivity"] == str(folder / "f0")


def test_matrices_beside_a_layer_count_in_the_memory(folder):
    for k in range(2):
        write_measured(folder / f"f{k}", folder / f"e{k}", FISHER, {"a": np.eye(5)})
    models = [{"model": str(folder / f"e{k}"), "gram": str(folder / f"f{k}")} for k in range(2)]
    document = {"merge_method": "regmean", "base_model": str(folder / "base"), "models": models}
    plan = rlmerge.plan(document, workers=1)
    assert [info.shape for info in plan.jobs["a"].extras["gram"]] == [(5, 5), (5, 5)]
    assert "gram" not in plan.jobs["b"].extras
    without = dataclasses.replace(plan, jobs={n: dataclasses.replace(job, extras={}) for n, job in plan.jobs.items()})
    # Two matrices as decoded, and seven in float64: both, their moments, the sum and what it is solved with.
    assert plan.peak_memory - without.peak_memory == 2 * 4 * 25 + 7 * 8 * 25
