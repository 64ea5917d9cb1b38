from pathlib import Path

import numpy as np
import pytest

import rlmerge
from rlmerge.calibration.directions import LAMBDA, WEIGHT, Store, along, find_directions, with_values
from rlmerge.errors import RequestError
from rlmerge.merging.make import open_recipe
from rlmerge.options import Options
from rlmerge.progress import Quiet
from rlmerge.recipe import load_recipe
from rlmerge.recipe.setting import Setting
from support.models import read_model, write_model

WIDE = Options(dtype="float64", out_dtype="float64", workers=1)
NAMES = {f"model.layers.{k}.mlp.up_proj.weight": (12, 8) for k in range(2)} | {"model.norm.weight": (8,)}


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A float32 base and three experts with changes everywhere."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    base = {name: rng.standard_normal(shape, np.float32) for name, shape in NAMES.items()}
    write_model(tmp_path / "base", base)
    for k in range(3):
        write_model(tmp_path / f"e{k}", {n: w + rng.standard_normal(w.shape, np.float32) for n, w in base.items()})
    return tmp_path


def recipe_of(method, parameters="{}"):
    experts = "".join(f"- model: e{k}\n" for k in range(3))
    return load_recipe(f"merge_method: {method}\nbase_model: base\nmodels:\n{experts}parameters: {parameters}\n")


def found(recipe, scratch=None, find=find_directions):
    return find(recipe, open_recipe(recipe, WIDE), Store(scratch), WIDE, Quiet())


def test_task_arithmetic_moves_along_task_vectors(models):
    directions = found(recipe_of("task_arithmetic", "{lambda: 0.5, weight: 7}"))
    assert directions.parameter == WEIGHT and directions.count == 3
    base, *experts = (read_model(models / name) for name in ("base", "e0", "e1", "e2"))
    for name in NAMES:
        for k, expert in enumerate(experts):
            change = 0.5 * (expert[name].astype(np.float64) - base[name]).ravel()
            # What was found in float64 is held in float32.
            np.testing.assert_allclose(directions.changes[name][k], change, rtol=1e-6, atol=1e-7)
        np.testing.assert_array_equal(directions.base[name], base[name].ravel())


@pytest.mark.parametrize("method", ["task_arithmetic", "covariance"])
def test_directions_predict_the_merge_at_any_weights(models, method):
    recipe = recipe_of(method)
    directions = found(recipe)
    weights = [0.3, -0.4, 1.7]
    asked = with_values(recipe, WEIGHT, [Setting.constant(w) for w in weights])
    rlmerge.merge(asked, models / "out", cache=False)
    merged = read_model(models / "out")
    for name in NAMES:
        predicted = directions.base[name] + np.array(weights) @ directions.changes[name]
        # A float32 merge of weights around 1.
        np.testing.assert_allclose(merged[name].ravel(), predicted, atol=2e-5)


def test_a_method_that_elects_signs_moves_along_its_lambda(models):
    directions = found(recipe_of("ties", "{density: 0.5}"))
    assert directions.parameter == LAMBDA and directions.count == 1
    rlmerge.merge(recipe_of("ties", "{density: 0.5, lambda: 0.25}"), models / "out", cache=False)
    merged = read_model(models / "out")
    for name in NAMES:
        predicted = directions.base[name] + 0.25 * directions.changes[name][0]
        np.testing.assert_allclose(merged[name].ravel(), predicted, atol=1e-6)


def test_normalised_weights_are_not_linear(models):
    recipe = recipe_of("task_arithmetic", "{normalize: true}")
    assert found(recipe).parameter == LAMBDA
    with pytest.raises(RequestError, match=r"'task_arithmetic' is not linear in weight \(it is off by"):
        found(recipe, find=along(WEIGHT))


def test_a_method_without_coefficients_is_refused(models):
    with pytest.raises(RequestError, match="'arcee_fusion' is not linear in weights or lambda"):
        found(load_recipe("merge_method: arcee_fusion\nbase_model: base\nmodels:\n- model: e0\n"))
    with pytest.raises(RequestError, match="'slerp' is not linear in lambda"):
        recipe = load_recipe("merge_method: slerp\nbase_model: base\nmodels:\n- model: e0\nparameters: {t: 0.5}\n")
        found(recipe, find=along(LAMBDA))


def test_scratch_holds_the_same_values_and_leaves_no_file(models):
    recipe = recipe_of("task_arithmetic")
    memory, files = found(recipe), found(recipe, scratch=str(models / "scratch"))
    for name in NAMES:
        assert isinstance(files.changes[name], np.memmap)
        np.testing.assert_array_equal(memory.changes[name], files.changes[name])
    assert list(Path("scratch").iterdir()) == []


def test_values_replace_those_of_every_level(models):
    text = "merge_method: task_arithmetic\nbase_model: base\nmodels:\n"
    text += "- {model: e0, parameters: {weight: 3}}\n- model: e1\nparameters: {weight: 2, lambda: 0.5}\n"
    changed = with_values(load_recipe(text), WEIGHT, [Setting.constant(0.1), Setting.constant(0.2)])
    values = changed.values("model.norm.weight", 2)
    assert values["weight"].tolist() == [0.1, 0.2] and values["lam"] == 0.5
    assert changed.parameters.keys() == {"lambda"}
    changed = with_values(load_recipe(text), LAMBDA, [Setting.constant(0.9)])
    values = changed.values("model.norm.weight", 2)
    assert values["weight"].tolist() == [3.0, 2.0] and values["lam"] == 0.9
