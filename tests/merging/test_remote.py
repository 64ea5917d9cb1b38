"""Merges of models that are elsewhere: the same bytes, nothing kept here, memory within the budget, no secrets."""

import threading
from functools import cached_property

import numpy as np
import pytest

pytest.importorskip("huggingface_hub")

import rlmerge
from rlmerge.checkpoint.remote import file as remote_file
from rlmerge.checkpoint.remote import mirror, store
from rlmerge.checkpoint.remote.link import LINK
from rlmerge.errors import RecipeError, RunError
from rlmerge.inspection.inspect import inspect
from rlmerge.merging.plan import Plan
from support.family import merge
from support.models import write_model
from support.stores import Faults, hub, times, use_hub

SHAPES = {"model.embed_tokens.weight": (500, 600), "model.layers.0.mlp.up_proj.weight": (301, 1023), "model.s": ()}


@pytest.fixture
def faults(monkeypatch):
    monkeypatch.setattr(store, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(store, "LONGEST_DELAY", 0.01)
    return Faults()


@pytest.fixture
def models(tmp_path):
    """``base``, ``e0`` and ``e1`` in the folder ``org``."""
    rng = np.random.default_rng(3)
    base = {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}
    for name in ("base", "e0", "e1"):
        changed = {k: w + (name != "base") * 0.1 * rng.standard_normal(w.shape) for k, w in base.items()}
        write_model(tmp_path / "org" / name, changed, "bfloat16")
    return tmp_path


@pytest.fixture
def org(models, faults, monkeypatch):
    with hub(models, faults, [1]) as endpoint:
        use_hub(monkeypatch, endpoint)
        yield "hf://org"


def recipe(folder, method, **parameters):
    experts = [{"model": f"{folder}/e0"}, {"model": f"{folder}/e1"}]
    return {"merge_method": method, "base_model": f"{folder}/base", "models": experts, "parameters": parameters}


def weights(out):
    return {path.name: path.read_bytes() for path in out.iterdir() if "safetensors" in path.name}


@pytest.mark.parametrize(
    ("method", "parameters"),
    [("task_arithmetic", {}), ("ties", {"density": 0.3}), ("ties", {"density": 0.3, "scope": "global"}), ("iso_c", {})],
)
def test_the_bytes_are_those_of_a_merge_of_local_copies(org, models, tmp_path, faults, method, parameters):
    """Whole tensors, statistics of tensors and of the model, while every third request fails."""
    merge(recipe(models / "org", method, **parameters), tmp_path / "here", shard_size=400_000)
    faults.plan = lambda verb, path, number: ["500", "cut", "hang up"][number // 3 % 3] if number % 3 == 0 else None
    merge(recipe(org, method, **parameters), tmp_path / "there", shard_size=400_000)
    assert weights(tmp_path / "there") == weights(tmp_path / "here") and len(weights(tmp_path / "here")) > 1


def test_what_a_tensors_statistics_read_is_not_fetched_again(org, models, tmp_path, faults):
    size = (models / "org" / "e0" / "model.safetensors").stat().st_size
    plan = rlmerge.plan(recipe(org, "ties"))
    before = faults.bytes_of("e0/model.safetensors")
    rlmerge.merge(recipe(org, "ties"), tmp_path / "out")
    fetched = faults.bytes_of("e0/model.safetensors") - before
    # Once for the fingerprint, whole as the model is small, and once for its statistics and the merge together.
    assert 1.9 * size < fetched < 2.2 * size and plan.sizing.ahead == 128 * 2**20
    assert LINK.held <= plan.sizing.ahead


def test_the_models_of_a_recipe_are_listed_side_by_side(org, models, monkeypatch):
    """Each waits for the two others to begin."""
    meeting, alone = threading.Barrier(3, timeout=20), mirror._mirrored

    def together(address, revision):
        meeting.wait()
        return alone(address, revision)

    monkeypatch.setattr(mirror, "_mirrored", together)
    assert [model.reference for model in rlmerge.plan(recipe(org, "linear")).experts] == [f"{org}/e0", f"{org}/e1"]


def test_every_model_that_cannot_be_listed_is_named(org, models):
    asked = recipe(org, "linear")
    asked["models"][0]["model"], asked["models"][1]["model"] = f"{org}/lost", f"{org}/gone"
    with pytest.raises(RecipeError) as error:
        rlmerge.plan(asked)
    assert [problem.where for problem in error.value.problems] == [f"{org}/lost", f"{org}/gone"]


def test_what_is_read_first_is_asked_for_before_the_inputs_are_identified(org, models, tmp_path, monkeypatch):
    seen = []
    read, digest = LINK.prefetch, Plan.digest.func
    monkeypatch.setattr(LINK, "prefetch", lambda file, *where: (seen.append(file.name), read(file, *where)))
    identified = cached_property(lambda plan: (seen.append("digest"), digest(plan))[1])
    identified.__set_name__(Plan, "digest")
    monkeypatch.setattr(Plan, "digest", identified)
    rlmerge.merge(recipe(org, "task_arithmetic"), tmp_path / "out")
    assert "digest" in seen and "model.safetensors" in seen[: seen.index("digest")]


def test_a_plan_reads_headers_and_samples(org, models, faults, monkeypatch):
    monkeypatch.setattr("rlmerge.checkpoint.fingerprint.WHOLE", 1000)
    plan = rlmerge.plan(recipe(org, "ties"))
    size = (models / "org" / "base" / "model.safetensors").stat().st_size
    assert plan.bytes_read > 3 * (size - 1000)
    assert faults.bytes_of("base/model.safetensors") < size / 20


def test_the_memory_of_what_arrives_is_part_of_the_budget(org, models):
    here, there = (rlmerge.plan(recipe(folder, "ram"), memory="64MiB") for folder in (models / "org", org))
    assert there.sizing.ahead == 16 * 2**20
    assert there.peak_memory >= here.peak_memory + 16 * 2**20
    assert there.peak_memory <= 64 * 2**20


def test_a_model_that_changes_during_the_run(org, models, tmp_path, faults, monkeypatch):
    """The repository is replaced after the plan; that shows when the files are looked at again."""
    monkeypatch.setattr(remote_file, "FRESH", 0.0)
    plan = rlmerge.plan(recipe(org, "ram"), tmp_path / "out")
    write_model(models / "org" / "e1", {"model.s": 0.0})
    with pytest.raises(RunError, match="has changed since it was opened") as error:
        rlmerge.api.run_plan(plan, tmp_path / "out")
    assert error.value.where == f"{org}/e1/model.safetensors"
    assert not (tmp_path / "out").exists()


def test_a_store_that_goes_away_leaves_work_to_resume(org, models, tmp_path, faults):
    asked = recipe(org, "task_arithmetic")
    plan = rlmerge.plan(asked, tmp_path / "out", memory="64MiB")
    assert plan.digest, "what it was planned from is known"
    faults.plan = times(10**6, "500", "e1/model.safetensors")
    with pytest.raises(RunError, match="8 requests failed") as error:
        rlmerge.api.run_plan(plan, tmp_path / "out")
    assert "--resume" in str(error.value)
    faults.plan = lambda *_: None
    rlmerge.merge(asked, tmp_path / "out", resume=True)
    rlmerge.merge(recipe(models / "org", "task_arithmetic"), tmp_path / "here")
    assert weights(tmp_path / "out") == weights(tmp_path / "here")


def test_no_secret_is_written(org, tmp_path):
    rlmerge.merge(recipe(org, "ram"), tmp_path / "out")
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir())
    assert b"hf_secret" not in written and b"signature" not in written and b"rlmerge-remote" not in written
    card = (tmp_path / "out" / "README.md").read_text()
    assert "base_model:\n- org/base\n- org/e0\n- org/e1\n" in card


def test_a_lock_rebuilds_the_merge(org, tmp_path):
    rlmerge.merge(recipe(org, "ram"), tmp_path / "out")
    rlmerge.merge(tmp_path / "out" / "rlmerge.lock.yaml", tmp_path / "again")
    assert weights(tmp_path / "again") == weights(tmp_path / "out")


def test_secrets_in_a_recipe_are_refused_and_not_repeated(tmp_path):
    asked = recipe("https://me:hunter2@host", "ram")
    with pytest.raises(RecipeError, match="user name or a secret") as error:
        rlmerge.plan(asked)
    assert "hunter2" not in str(error.value)


def test_inspection_of_remote_models(org, models):
    here, there = (inspect(f"{folder}/base", [f"{folder}/e0"]) for folder in (models / "org", org))
    assert there.experts[0].figures == here.experts[0].figures
