import pytest

from rlmerge.errors import RecipeError
from rlmerge.recipe import Setting


def test_a_ten_line_recipe(load):
    recipe = load(
        "merge_method: ties\n"
        "base_model: org/base\n"
        "models:\n"
        "  - model: org/math\n"
        "    parameters: {weight: 0.5, density: 0.2}\n"
        "  - model: org/code@v2\n"
        "parameters:\n"
        "  lambda: 1.1\n"
        "dtype: float32\n"
        "out_dtype: torch.bfloat16\n"
    )
    assert recipe.method.name == "ties"
    assert str(recipe.base) == "org/base"
    assert [str(e.model) for e in recipe.experts] == ["org/math", "org/code@v2"]
    assert [e.line for e in recipe.experts] == [4, 6]
    assert recipe.experts[0].parameters["density"] == Setting.constant(0.2)
    assert (recipe.dtype, recipe.out_dtype, recipe.compat) == ("float32", "bfloat16", False)
    assert recipe.warnings == ()


def test_every_problem_is_reported_at_once_by_line(problems):
    found = problems(
        "merge_method: ties\n"
        "base_model: org/base\n"
        "models:\n"
        "  - model: org/a\n"
        "    paramters: {weight: 1}\n"
        "  - model: org/b\n"
        "    parameters: {densty: 0.5, density: -1}\n"
        "parameters:\n"
        "  normalize: [true, false]\n"
        "dtype: bf61\n"
    )
    assert [where for where, _, _ in found] == [f"recipe:{line}" for line in (5, 7, 7, 9, 10)]
    text = " ".join(f"{what} {hint}" for _, what, hint in found)
    expected = ("'paramters'", "'parameters'?", "'densty'", "'density'?", "above 0, not -1", "cannot vary", "'bf61'")
    assert [part for part in expected if part not in text] == []


def test_an_unknown_method_is_suggested_and_the_rest_still_checked(problems):
    found = problems("merge_method: tiess\nmodels:\n  - model: a\n    modle: 1\nbase_modle: b\n")
    assert ("recipe:1", "unknown method 'tiess'", "Did you mean 'ties'?") in found
    assert {where for where, _, _ in found} == {"recipe:1", "recipe:4", "recipe:5"}


@pytest.mark.parametrize("name", ["TIES", "dare-linear", "[ties]", "''"])
def test_a_method_has_one_spelling(problems, name):
    assert len(problems(f"merge_method: {name}\nbase_model: b\nmodels: [a]\n")) == 1


def test_a_parameter_one_level_too_high_is_told_where_it_goes(problems):
    found = problems("merge_method: ties\nbase_model: b\ndensity: 0.5\nmodels: [{model: a, weight: 1}]\n")
    assert [hint for _, _, hint in found] == [
        "'density' goes under `parameters:`.",
        "'weight' goes under `parameters:`.",
    ]


@pytest.mark.parametrize("key", ["dype", "Models", "base-modle", "mergemethod", "tokenizr", "paramters", "out_dtpye"])
def test_near_misses_of_keys_are_errors_and_under_compat_warnings(problems, warned, key):
    text = f"merge_method: ties\nbase_model: b\nmodels: [a]\n{key}: x\n"
    ((where, what, hint),) = problems(text)
    assert (where, what) == ("recipe:4", f"unknown key '{key}' in the recipe")
    assert hint.startswith("Did you mean")
    assert warned(text + "compat: mergekit\n") == [f"unknown key '{key}' in the recipe: ignored, as in mergekit"]


@pytest.mark.parametrize("key", ["license", "allow_negative_weights", "embed_slerp", "int8_mask", "tags"])
def test_other_foreign_keys_are_warnings(warned, key):
    found = warned(f"merge_method: ties\nbase_model: b\nmodels: [a]\n{key}: x\n")
    assert found == [f"unknown key '{key}' in the recipe: ignored, as in mergekit"]


def test_names_and_extensions_are_nothing(load):
    recipe = load(
        "x-p: &p {weight: 0.5}\nname: my-merge\nmerge_method: ties\nbase_model: b\nmodels:\n"
        "  - {model: a, parameters: *p}\n"
        "  - {model: c, parameters: {<<: *p, weight: 0.25}, x-note: 1}\n"
    )
    assert recipe.warnings == ()
    assert recipe.name == "my-merge"
    assert recipe.values("w", 1)["weight"].tolist() == [0.5, 0.25]


def test_a_missing_method_and_a_list_for_a_recipe(problems):
    assert "names no `merge_method`" in problems("models: [a]\n")[0][1]
    assert "must be a mapping" in problems("- a\n- b\n")[0][1]


def test_a_mixture_of_experts_is_named_as_such(problems):
    ((_, what, hint),) = problems("base_model: b\ngate_mode: random\nexperts: [{source_model: a}]\n")
    assert "mixture of experts" in what
    assert hint.startswith("Build it with: rlmerge moe ") and hint.endswith(" -o OUT")


def test_empty_optional_keys_count_as_absent(load):
    recipe = load(
        "merge_method: linear\nbase_model:\nparameters:\ndtype: null\nmodels: [{model: a, parameters: }, b]\n"
    )
    assert recipe.base is None
    assert recipe.dtype is None


@pytest.mark.parametrize(
    ("text", "what"),
    [("dtype: int64", "'int64' is not a type to merge in"), ("out_dtype: [float32]", "a dtype must be text"),
     ("name: [a]", "`name` must be text")],
)  # fmt: skip
def test_values_of_the_wrong_kind(problems, text, what):
    assert problems(f"merge_method: linear\nmodels: [a]\n{text}\n")[0][:2] == ("recipe:3", what)


def test_compat_knows_one_name(load, problems):
    head = "merge_method: dare_linear\nbase_model: b\nmodels: [a]\n"
    assert load(head + "compat: mergekit\n").static() == {"rescale": "l1"}
    assert load(head).static() == {"rescale": "inverse"}
    assert "only be `mergekit`" in problems(head + "compat: true\n")[0][1]


def test_the_error_reads_as_one_message_per_problem(load):
    with pytest.raises(RecipeError) as caught:
        load("merge_method: ties\nbase_model: b\nmodels: [a]\nparameters: {densty: 1}\n")
    assert str(caught.value) == "recipe:4: method 'ties' has no parameter 'densty'\n  Did you mean 'density'?"
    assert caught.value.exit_code == 2
