"""What is free in a recipe, and the recipes that values make."""

import pytest

from rlmerge.errors import RecipeError, RequestError
from rlmerge.recipe import load_recipe
from rlmerge.recipe.load import registered
from rlmerge.recipe.yaml_text import documents
from rlmerge.search.space import Space

TEXT = """
merge_method: {choices: [task_arithmetic, ties]}
base_model: base
models:
- model: dir/math
  parameters:
    weight:
    - {filter: self_attn, value: {low: 0.2, high: 1.5}}
    - value: {low: 0.1, high: 1.0}
- model: dir/code
  parameters: {weight: {low: 0.5, high: 2.0, log: true}}
parameters:
  density: {low: 0.2, high: 0.8, step: 0.25}
  lambda: 1.5
"""


def space(text):
    return Space(documents(text, "search.yaml")[0], "search.yaml", registered)


def test_ranges_are_named_by_parameter_expert_and_group():
    found = {d.name: d for d in space(TEXT).dimensions}
    assert list(found) == [
        "merge_method",
        "weight of math [self_attn]",
        "weight of math",
        "weight of code",
        "density",
    ]
    grouped = found["weight of math [self_attn]"]
    assert (grouped.low, grouped.high, grouped.log, grouped.model, grouped.group) == (
        0.2, 1.5, False, "dir/math", "self_attn",
    )  # fmt: skip
    assert found["weight of code"].log
    # 0.2, 0.45, 0.7: a further step of 0.25 would leave the range.
    assert (found["density"].step, found["density"].high) == (0.25, pytest.approx(0.7))
    assert found["merge_method"].choices == ("task_arithmetic", "ties")


VALUES = {"weight of math [self_attn]": 1.25, "weight of math": 0.5, "weight of code": 0.75, "density": 0.45}


def test_values_make_the_recipe_that_a_user_would_write():
    made = space(TEXT).recipe({"merge_method": "ties", **VALUES})
    expected = load_recipe(
        "merge_method: ties\nbase_model: base\nmodels:\n"
        "- model: dir/math\n  parameters: {weight: [{filter: self_attn, value: 1.25}, {value: 0.5}]}\n"
        "- model: dir/code\n  parameters: {weight: 0.75}\n"
        "parameters: {density: 0.45, lambda: 1.5}\n"
    )
    assert made == expected


def test_parameters_that_only_another_method_knows_are_left_out():
    made = space(TEXT)
    recipe = made.recipe({"merge_method": "task_arithmetic", **VALUES})
    assert (recipe.method.name, "density" in recipe.parameters) == ("task_arithmetic", False)
    assert recipe.parameters["lambda"].only == 1.5
    density = next(d for d in made.dimensions if d.parameter == "density")
    assert not made.belongs(density, "task_arithmetic") and made.belongs(density, "ties")


def test_a_recipe_is_located_at_the_nearest_values():
    recipe = load_recipe(
        "merge_method: ties\nbase_model: base\nmodels:\n"
        "- model: dir/math\n  parameters: {weight: 0.02}\n- model: dir/code\n"
        "parameters: {density: 0.5, weight: 3}\n"
    )
    # 0.02 is below both ranges, 3 above [0.5, 2], and 0.5 lies nearest to 0.45 of the grid.
    assert space(TEXT).locate(recipe) == {
        "merge_method": "ties",
        "weight of math [self_attn]": 0.2,
        "weight of math": 0.1,
        "weight of code": 2.0,
        "density": pytest.approx(0.45),
    }


FIXED = """
merge_method: ties
base_model: base
models: [{model: a}, {model: b}]
parameters: {density: DENSITY}
"""


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{low: 0.2, high: 1.5}", "'density' must be at most 1, not 1.5"),
        ("{low: 0.8, high: 0.2}", "the range ends at 0.2, below its start at 0.8"),
        ("{low: 0, high: 1, log: true}", "a logarithmic range cannot start at 0"),
        ("{low: 0.2, hihg: 1}", "a range has no 'hihg'\n  Did you mean 'high'"),
        ("{low: a, high: 1}", "a range needs numbers"),
        ("{low: .nan, high: 1}", "a range needs numbers"),
        ("{low: 0.1}", "a range needs numbers"),
        ("{low: 0.1, high: 0.5, step: 0}", "a `step` is above 0"),
        ("{choices: []}", "`choices` is a list of plain values"),
        ("{choices: [0.5, 0.5]}", "`choices` names a value twice"),
        ("{choices: [0.5, high]}", "'density' must be a number, not 'high'"),
    ],
)
def test_ranges_that_make_no_sense_are_named_with_their_line(value, message):
    with pytest.raises(RecipeError) as caught:
        space(FIXED.replace("DENSITY", value))
    assert message in str(caught.value)
    assert "search.yaml:5" in str(caught.value)


def test_a_space_with_nothing_free_is_refused():
    for value in ("0.5", "{choices: [0.5]}", "{low: 0.5, high: 0.5}"):
        with pytest.raises(RequestError, match="nothing is free in this recipe"):
            space(FIXED.replace("DENSITY", value))


def test_ranges_elsewhere_and_parameters_of_no_method():
    with pytest.raises(RecipeError, match="a range stands for the merge_method or for a value of `parameters`"):
        space(FIXED.replace("DENSITY", "0.5") + "dtype: {choices: [float32, bfloat16]}\n")
    with pytest.raises(RecipeError, match="no parameter 'denisty'"):
        space(FIXED.replace("density: DENSITY", "denisty: {low: 0.1, high: 1}"))
    with pytest.raises(RecipeError, match="tise"):
        space(FIXED.replace("merge_method: ties", "merge_method: {choices: [tise, ram]}"))
