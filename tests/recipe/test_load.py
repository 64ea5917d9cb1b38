from pathlib import Path

import numpy as np
import pytest

from rlmerge.errors import RecipeError, RequestError
from rlmerge.recipe import Setting, recipe_from_flags

TEXT = "merge_method: ties\nbase_model: base\nmodels: [a, b]\nparameters: {lambda: 1.5}\n"


@pytest.fixture
def flags(lookup):
    return lambda *args, **kwargs: recipe_from_flags(*args, **kwargs, lookup=lookup)


def test_file_text_and_mapping_are_one_recipe(load, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(TEXT)
    from_file = load(path)
    assert from_file.origin == str(path)
    assert load(str(path)) == from_file == load(TEXT)
    mapping = {"merge_method": "ties", "base_model": "base", "models": ["a", "b"], "parameters": {"lambda": 1.5}}
    assert load(mapping) == from_file


def test_problems_of_a_file_name_it_and_its_line(problems, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(TEXT.replace("lambda", "lamda"))
    assert problems(path) == [(f"{path}:4", "method 'ties' has no parameter 'lamda'", "Did you mean 'lambda'?")]


def test_a_missing_file_suggests_its_neighbour(load, tmp_path):
    (tmp_path / "recipe.yaml").write_text(TEXT)
    (tmp_path / "recpies.txt").write_text("")
    with pytest.raises(RequestError) as caught:
        load(tmp_path / "recpie.yaml")
    assert caught.value.hint == f"Did you mean '{tmp_path / 'recipe.yaml'}'?"
    with pytest.raises(RequestError, match="no such recipe file") as caught:
        load(tmp_path / "nowhere" / "recipe.yaml")
    assert "no directory" in caught.value.hint


def test_what_is_no_recipe_file(load, tmp_path):
    with pytest.raises(RequestError, match="directory, not a recipe"):
        load(tmp_path)
    (tmp_path / "model.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="not UTF-8"):
        load(tmp_path / "model.yaml")
    (tmp_path / "big.yaml").write_bytes(b"#" * 1_000_001)
    with pytest.raises(RecipeError, match="larger than 1 MB"):
        load(tmp_path / "big.yaml")
    (tmp_path / "secret.yaml").write_text(TEXT)
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    with pytest.raises(RequestError, match="cannot read"):
        load(tmp_path / "loop.yaml")


def test_flags_are_the_same_recipe(flags, load):
    recipe = flags("ties", "base", ["a", "b"], {"lambda": "1.5"}, dtype="bf16", out_dtype="fp32", compat=True)
    assert recipe == load(TEXT + "dtype: bfloat16\nout_dtype: float32\ncompat: mergekit\n")
    assert load(recipe.text) == recipe


def test_a_comma_list_is_one_value_per_expert_or_a_gradient(flags):
    recipe = flags("ties", "base", ["a", "b"], {"weight": "0.5,0.3", "lambda": "0,1", "density": "[0.2, 1]"})
    values = recipe.values("layers.2.w", 3)
    np.testing.assert_array_equal(values["weight"], [0.5, 0.3])
    np.testing.assert_array_equal(values["density"], [1.0, 1.0])
    assert values["scale"] == 1.0
    assert recipe.values("layers.1.w", 3)["scale"] == 0.5


def test_python_values_work_as_text_does(flags):
    recipe = flags("ties", "base", ["a", "b"], {"weight": np.array([0.5, 0.3]), "lambda": 2, "normalize": False})
    np.testing.assert_array_equal(recipe.values("x", 1)["weight"], [0.5, 0.3])
    assert recipe.parameters["lambda"] == Setting.constant(2.0)


@pytest.mark.parametrize(
    ("parameters", "where", "what"),
    [
        ({"weight": "1,2,3"}, "-p weight", "'weight' has 3 values for 2 experts"),
        ({"density": "-1"}, "-p density", "must be above 0"),
        ({"density": ""}, "-p density", "needs a value"),
        ({"density": "{a"}, "-p density", "not valid YAML"),
        ({"densty": "1"}, "-p densty", "no parameter 'densty'"),
    ],
)
def test_errors_name_the_flag(flags, parameters, where, what):
    with pytest.raises(RecipeError) as caught:
        flags("ties", "base", ["a", "b"], parameters)
    assert caught.value.problems[0].where.startswith(where)
    assert what in caught.value.problems[0].what


def test_flag_errors_come_all_at_once(flags):
    with pytest.raises(RecipeError) as caught:
        flags("tiess", None, ["a+b"], {"weight": "1,2"}, dtype="bf61")
    assert [p.where for p in caught.value.problems] == ["--method", "a+b", "--dtype"]


@pytest.mark.parametrize("directories", ["fa,1e5", ["fa", "1e5"], (Path("fa"), Path("1e5"))])
def test_further_inputs_are_directories_and_never_numbers(flags, directories):
    recipe = flags("measured", "base", ["a", "b"], {"sensitivity": directories, "weight": "1,2"})
    assert recipe.inputs == {"sensitivity": ("fa", "1e5")}


def test_the_directory_of_one_expert_may_hold_a_comma(flags):
    assert flags("measured", "base", ["a"], {"sensitivity": "f,a"}).inputs == {"sensitivity": ("f,a",)}


@pytest.mark.parametrize("directories", ["fa", "fa,fb,fc", ["fa"], 3.0])
def test_each_expert_needs_one_directory(flags, directories):
    with pytest.raises(RecipeError, match=r"-p sensitivity: 'sensitivity' has \d directories for 2 experts"):
        flags("measured", "base", ["a", "b"], {"sensitivity": directories})


def test_the_default_lookup_is_the_registry():
    assert recipe_from_flags("task_arithmetic", "base", ["a"]).method.name == "task_arithmetic"
