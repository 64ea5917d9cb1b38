from pathlib import Path

import numpy as np
import pytest

from rlmerge.errors import RecipeError
from rlmerge.recipe import Setting, recipe_from_flags

TEXT = "merge_method: ties\nbase_model: base\nmodels: [a, b]\nparameters: {lambda: 1.5}\n"


@pytest.fixture
def flags(lookup):
    return lambda *args, **kwargs: recipe_from_flags(*args, **kwargs, lookup=lookup)


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
        ({"density": "null"}, "-p density", "must be a number, not None"),
        ({"density": "# 1"}, "-p density", "must be a number, not None"),
        ({"density": "1\n---\n2"}, "-p density", "must be a number, not None"),
        ({"density": "{a"}, "-p density", "not valid YAML"),
        ({"densty": "1"}, "-p densty", "no parameter 'densty'"),
        ({"anything": "1"}, "-p anything", "no parameter 'anything'"),
        ({"select_topk": object()}, "-p select_topk", "cannot hold"),
    ],
)
def test_errors_name_the_flag(flags, parameters, where, what):
    with pytest.raises(RecipeError) as caught:
        flags("ties", "base", ["a", "b"], parameters)
    assert caught.value.problems[0].where.startswith(where)
    assert what in caught.value.problems[0].what


def test_a_flag_that_means_nothing_is_an_error_unless_mergekit_knows_it(flags):
    """A recipe may come from mergekit; a command line was written for us."""
    recipe = flags("ties", "base", ["a"], {"int8_mask": "true"})
    assert recipe.warnings == ("-p int8_mask: 'int8_mask' has no effect on ties: ignored, as in mergekit",)
    assert flags("ties", "base", ["a"], {"anything": "1"}, compat=True).warnings


def test_flag_errors_come_all_at_once(flags):
    with pytest.raises(RecipeError) as caught:
        flags("tiess", None, ["a+b+c"], {"weight": "1,2"}, dtype="bf61")
    assert [p.where for p in caught.value.problems] == ["--method", "a+b+c", "--dtype"]


def test_an_expert_may_carry_an_adapter(flags):
    recipe = flags("ties", "base", ["base+math-lora", "b"])
    assert str(recipe.experts[0].model.adapter) == "math-lora"


def test_the_base_is_what_experts_are_compared_with_and_never_averaged_in(flags):
    for method, parameters in (("linear", {"weight": "0.5"}), ("karcher", {})):
        recipe = flags(method, "base", ["a", "b"], parameters)
        assert [str(expert.model) for expert in recipe.experts] == ["a", "b"]
        assert "averages only the listed models" in recipe.warnings[0]


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
