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


def test_every_problem_is_reported_at_once_with_its_line(problems):
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
    assert [where for where, _, _ in found] == [f"recipe:{line}" for line in (5, 10, 9, 7, 7)]
    text = " ".join(f"{what} {hint}" for _, what, hint in found)
    expected = ("'paramters'", "'parameters'?", "'densty'", "'density'?", "above 0, not -1", "cannot vary", "'bf61'")
    assert [part for part in expected if part not in text] == []


def test_an_unknown_method_is_suggested_and_the_rest_still_checked(problems):
    found = problems("merge_method: tiess\nmodels:\n  - model: a\n    oops: 1\nbase_modle: b\n")
    assert ("recipe:1", "unknown method 'tiess'", "Did you mean 'ties'?") in found
    assert {where for where, _, _ in found} == {"recipe:1", "recipe:4", "recipe:5"}


def test_a_parameter_one_level_too_high_is_told_where_it_goes(problems):
    found = problems("merge_method: ties\nbase_model: b\ndensity: 0.5\nmodels: [{model: a, weight: 1}]\n")
    assert [hint for _, _, hint in found] == [
        "'density' goes under `parameters:`.",
        "'weight' goes under `parameters:`.",
    ]


def test_a_missing_method_and_a_list_for_a_recipe(problems):
    assert "names no `merge_method`" in problems("models: [a]\n")[0][1]
    assert "must be a mapping" in problems("- a\n- b\n")[0][1]


def test_empty_optional_keys_count_as_absent(load):
    recipe = load("merge_method: linear\nbase_model:\nparameters:\ndtype: null\nmodels: [a, b]\n")
    assert recipe.base is None
    assert recipe.dtype is None


def test_compat_knows_one_name(load, problems):
    head = "merge_method: dare_linear\nbase_model: b\nmodels: [a]\n"
    assert load(head + "compat: mergekit\n").static() == {"rescale": "l1"}
    assert load(head).static() == {"rescale": "inverse"}
    assert "only be `mergekit`" in problems(head + "compat: true\n")[0][1]


def test_linear_with_an_unlisted_base(load, problems):
    """mergekit adds the base to the average, and stops when it has no weight; here it never enters unlisted."""
    head = "merge_method: linear\nbase_model: base\nmodels:\n  - {model: a, parameters: {weight: 0.5}}\n"
    recipe = load(head)
    assert [str(e.model) for e in recipe.experts] == ["a"]
    assert "averages only the listed models" in recipe.warnings[0]
    ((where, what, hint),) = problems(head + "parameters: {weight: 1}\n")
    assert where == "recipe:2"
    assert "the base is not among them" in what
    assert "List the base under `models`" in hint


def test_linear_averages_a_listed_base(load):
    recipe = load("merge_method: linear\nbase_model: base\nmodels: [a, base]\nparameters: {weight: 1}\n")
    assert [str(e.model) for e in recipe.experts] == ["a", "base"]
    assert recipe.warnings == ()


def test_slice_parameters_win_over_the_top_level_tensor_by_tensor(load):
    recipe = load(
        "merge_method: slerp\n"
        "base_model: a\n"
        "slices:\n"
        "  - sources: [{model: a, layer_range: [0, 4]}, {model: b, layer_range: [0, 4]}]\n"
        "    parameters: {t: [{filter: mlp, value: 0.9}]}\n"
        "parameters: {t: 0.5}\n"
    )
    assert recipe.values("model.layers.0.mlp.up", 4) == {"t": 0.9}
    assert recipe.values("model.layers.0.attn.q", 4) == {"t": 0.5}


def test_the_error_reads_as_one_message_per_problem(load):
    try:
        load("merge_method: ties\nbase_model: b\nmodels: [a]\nparameters: {densty: 1}\n")
    except RecipeError as error:
        assert str(error) == "recipe:4: method 'ties' has no parameter 'densty'\n  Did you mean 'density'?"
        assert error.exit_code == 2
