"""The sampled check that an expert descends from the base."""

import json

import numpy as np
import pytest

from rlmerge.merging import make_plan
from rlmerge.merging.wrong_base import check_base
from rlmerge.options import Options
from rlmerge.recipe import load_recipe
from support.family import cli
from support.models import write_model

SHAPES = {"model.embed_tokens.weight": (600, 64), **{f"model.layers.{i}.w": (64, 96) for i in range(20)}}


def draw(seed):
    """Matrices around 0 and the scales of a norm around 1, as training leaves them."""
    rng = np.random.default_rng(seed)
    matrices = {name: 0.04 * rng.standard_normal(shape) for name, shape in SHAPES.items()}
    return matrices | {f"model.layers.{i}.norm.weight": 1 + 0.01 * rng.standard_normal(5000) for i in range(20)}


def trained(base, seed, relative, share=1.0):
    """``base`` with random changes of ``relative`` norm in a ``share`` of the entries."""
    rng = np.random.default_rng(seed)
    scale = relative / np.sqrt(share)
    return {
        name: w + scale * np.std(w) * rng.standard_normal(w.shape) * (rng.random(w.shape) < share)
        for name, w in base.items()
    }


def warnings(tmp_path, base, *experts, dtype="bfloat16", **more):
    write_model(tmp_path / "base", base, dtype)
    for k, expert in enumerate(experts):
        write_model(tmp_path / f"e{k}", expert, dtype)
    models = [{"model": str(tmp_path / f"e{k}")} for k in range(len(experts))]
    asked = {"merge_method": "linear", "base_model": str(tmp_path / "base"), "models": models} | more
    return check_base(make_plan(load_recipe(asked), None, Options()))


def test_a_model_trained_apart_is_named(tmp_path):
    base = draw(1)
    (found,) = warnings(tmp_path, base, trained(base, 2, 0.01), draw(3))
    assert found.startswith(f"{tmp_path / 'e1'} does not look trained from {tmp_path / 'base'}: ")
    # Two normal numbers of one scale share a bfloat16 with a probability below 1 %.
    assert "% of the sampled weights are equal, and their cosine is " in found
    assert float(found.split("cosine is ")[1].split(". Check")[0]) == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize(
    ("relative", "share"),
    [(1e-4, 1.0), (0.02, 0.1), (0.1, 1.0), (0.4, 1.0), (3.0, 0.5)],
    ids=["rl", "sparse rl", "long supervised training", "very long training", "half replaced"],
)
def test_training_is_not_taken_for_another_base(tmp_path, relative, share):
    base = draw(1)
    assert warnings(tmp_path, base, trained(base, 2, relative, share), dtype="float32") == []


@pytest.mark.parametrize(("change", "foreign"), [(0.54, False), (0.57, True)])
def test_a_change_of_about_half_the_base_and_across_it_is_the_limit(tmp_path, change, foreign):
    """A change across the base of c times its norm leaves the cosine 1/√(1+c²): 0.880 at 0.54 and 0.869 at 0.57."""
    signs = np.where(np.arange(100 * 100).reshape(100, 100) % 2, 1.0, -1.0)
    halves = np.where(np.arange(100 * 100).reshape(100, 100) % 4 < 2, 1.0, -1.0)
    assert bool(warnings(tmp_path, {"w": signs}, {"w": signs + change * halves}, dtype="float32")) is foreign


def test_models_that_cannot_be_judged_are_not(tmp_path):
    tiny = {"w": np.eye(4)}
    assert warnings(tmp_path, tiny, {"w": -np.eye(4)}) == []
    assert warnings(tmp_path, {"norm": np.ones(9000)}, {"norm": -np.ones(9000)}) == []
    zeros = {"w": np.zeros((100, 100))}
    assert warnings(tmp_path, zeros, {"w": np.ones((100, 100))}) == []
    broken = {"w": np.full((100, 100), np.nan)}
    assert warnings(tmp_path, {"w": np.ones((100, 100))}, broken) == []


def test_an_embedding_of_its_own_does_not_make_a_stranger(tmp_path):
    base = draw(1)
    expert = trained(base, 2, 0.01) | {"model.embed_tokens.weight": draw(3)["model.embed_tokens.weight"]}
    assert warnings(tmp_path, base, expert) == []


def test_the_command_warns_before_it_merges_and_in_the_result(tmp_path):
    write_model(tmp_path / "base", draw(1))
    write_model(tmp_path / "foreign", draw(2))
    done = cli(tmp_path, "merge", "--method", "ties", "--base", "base", "foreign", "-o", "out", "--format", "json")
    assert done.returncode == 0
    lines = done.stderr.splitlines()
    assert lines[0].startswith("warning: foreign does not look trained from base: ")
    assert lines[1].startswith("merge: ")
    assert json.loads(done.stdout)["warnings"][0] == lines[0].removeprefix("warning: ")
    assert lines[0].removeprefix("warning: ") in (tmp_path / "out" / "README.md").read_text()
