import pytest

from rlmerge.recipe import Setting

DARE = "merge_method: dare_linear\nbase_model: base\nmodels: [a]\n"
TIES = "merge_method: ties\nbase_model: b\n"


def parameters(load, text):
    return load(DARE + f"parameters: {{{text}}}\n").parameters


def refused(problems, text):
    return [what for _, what, _ in problems(DARE + f"parameters: {{{text}}}\n")]


@pytest.mark.parametrize(
    ("written", "meant"),
    [("true", "inverse"), ("false", "none"), ("l1", "l1"), ("none", "none"), ("1.0", "inverse"), ("'false'", "none")],
)
def test_a_boolean_where_there_is_a_choice_means_the_default_or_none(load, written, meant):
    assert parameters(load, f"rescale: {written}") == {"rescale": Setting.constant(meant)}


def test_true_means_mergekits_choice_under_compat(load):
    recipe = load(DARE + "compat: mergekit\nparameters: {rescale: true}\n")
    assert recipe.static() == {"rescale": "l1"}


@pytest.mark.parametrize(
    ("written", "meant"),
    [("1", True), ("0", False), ("0.0", False), ("no", False), ("'true'", True), ("'no'", False), ("'0'", False)],
)
def test_zero_and_one_and_quoted_words_are_booleans_where_one_is_due(load, written, meant):
    recipe = load(f"merge_method: linear\nmodels: [a]\nparameters: {{normalize: {written}}}\n")
    assert recipe.static() == {"normalize": meant}


@pytest.mark.parametrize(("written", "meant"), [("2", 2.0), ("'0.5'", 0.5), ('" 1e-3 "', 1e-3), ("'-.5'", -0.5)])
def test_integers_and_quoted_numbers_are_numbers(load, written, meant):
    value = parameters(load, f"weight: {written}")["weight"].only
    assert value == meant
    assert isinstance(value, float)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("density: 0", "'density' must be above 0, not 0"),
        ("density: [0.5, 1.5]", "'density' must be at most 1, not 1.5"),
        ("density: [{filter: mlp, value: [0.5, -2]}, {value: 1}]", "'density' must be above 0, not -2"),
        ("weight: '0,5'", "'weight' must be a number, not '0,5'"),
        ("weight: 1/3", "'weight' must be a number, not '1/3'"),
        ("weight: 30%", "'weight' must be a number, not '30%'"),
        ("weight: true", "'weight' must be a number, not True"),
        ("weight: 'true'", "'weight' must be a number, not 'true'"),
        ("weight: null", "'weight' must be a number, not None"),
        ("weight: .inf", "'weight' must be finite, not inf"),
        ("weight: '1e999'", "'weight' must be finite, not inf"),
        ("weight: .nan", "'weight' must be a number, not nan"),
        (f"weight: 1{'0' * 400}", "'weight' must be finite, not inf"),
        ("rescale: l3", "'rescale' must be one of inverse, l1, none, not 'l3'"),
        ("rescale: 2", "'rescale' must be one of inverse, l1, none, not 2"),
        ("rescale: [{filter: mlp, value: l1}]", "'rescale' cannot vary from tensor to tensor"),
        ("lambada: 1", "method 'dare_linear' has no parameter 'lambada'"),
    ],
)
def test_values_a_parameter_cannot_take(problems, text, what):
    assert refused(problems, text) == [what]


def test_every_bad_value_of_a_list_is_reported(problems):
    assert len(refused(problems, "density: [-1, 0.5, 3]")) == 2


def test_a_number_of_a_thousand_digits_is_told_in_short(problems):
    ((_, what, _),) = problems(DARE + f"parameters: {{rescale: 0x{'f' * 1000}}}\n")
    assert "must be one of" in what
    assert len(what) < 500


def test_a_value_of_all_models_given_for_one_model(problems):
    found = problems(TIES + "models: [{model: a, parameters: {normalize: false, lambda: 2}}]\n")
    assert [what for _, what, _ in found] == [
        "'normalize' of method 'ties' has one value for all models",
        "'lambda' of method 'ties' has one value for all models",
    ]
    assert found[0][2] == "Move it to `parameters:` of the recipe, a module or a slice."


def test_repeating_the_value_in_force_beside_a_model_changes_nothing(warned):
    """mergekit never looks there; where it says the same, there is nothing to lose."""
    text = "models: [{model: a, parameters: {normalize: true, lambda: 2}}]\nparameters: {lambda: 2}\n"
    assert warned(TIES + text) == [
        "'normalize' of method 'ties' has one value for all models: ignored here, as in mergekit",
        "'lambda' of method 'ties' has one value for all models: ignored here, as in mergekit",
    ]


def test_compat_ignores_it_whatever_it_says(load):
    recipe = load(TIES + "models: [{model: a, parameters: {normalize: false}}]\ncompat: mergekit\n")
    assert recipe.static() == {"normalize": True}


@pytest.mark.parametrize(
    ("method", "name"),
    [("slerp", "weight"), ("plain", "weight"), ("linear", "density"), ("ties", "int8_mask"), ("ties", "filter_wise"),
     ("ties", "int_space"), ("linear", "t"), ("ties", "rescale")],
)  # fmt: skip
def test_a_parameter_of_other_methods_is_ignored_with_a_warning(warned, method, name):
    more = "t: 0.5, " if method == "slerp" else ""
    text = f"merge_method: {method}\nbase_model: b\nmodels: [a]\nparameters: {{{more}{name}: true}}\n"
    assert f"'{name}' has no effect on {method}: ignored, as in mergekit" in warned(text)


def test_its_value_does_not_matter(warned):
    rules = "[{filter: mlp, value: [2, 1]}, {value: x}]"
    text = f"models: [{{model: a, parameters: {{gamma: {rules}}}}}]\n"
    assert warned(TIES + text) == ["'gamma' has no effect on ties: ignored, as in mergekit"]


def test_a_near_miss_is_an_error_and_under_compat_a_warning(problems, warned):
    ((_, what, hint),) = problems(TIES + "models: [a]\nparameters: {densty: 0.5}\n")
    assert (what, hint) == ("method 'ties' has no parameter 'densty'", "Did you mean 'density'?")
    found = warned(TIES + "models: [a]\nparameters: {densty: 0.5}\ncompat: mergekit\n")
    assert found == ["'densty' has no effect on ties: ignored, as in mergekit"]


def test_a_dtype_among_the_parameters_is_said_aloud(warned):
    (text,) = warned(TIES + "models: [a]\nparameters: {dtype: bfloat16}\n")
    assert "`dtype` has NO EFFECT among the parameters" in text


@pytest.mark.parametrize("name", ["seed", "random_seed"])
def test_a_seed_among_the_parameters_is_sent_to_the_command_line(warned, name):
    assert "--seed" in warned(TIES + f"models: [a]\nparameters: {{{name}: 145}}\n")[0]


def test_keys_of_other_places_are_errors(problems):
    found = problems(TIES + "models: [a]\nparameters: {base_model: b, layer_range: [0, 2]}\n")
    assert [hint for _, _, hint in found] == [
        "`base_model` goes at the top level of the recipe or in a slice.",
        "`layer_range` goes beside a `model:` under `sources` of a slice.",
    ]


def test_an_extension_is_nothing(warned):
    assert warned(TIES + "models: [a]\nparameters: {x-note: 1}\n") == []


def test_parameters_must_be_a_mapping(problems):
    assert "must be a mapping" in problems(DARE + "parameters: [1]\n")[0][1]


def test_a_thousand_unknown_parameters_are_one_error(problems):
    keys = ", ".join(f"foreign{i}: 1" for i in range(5000))
    ((_, what, _),) = problems(TIES + f"models: [a]\nparameters: {{{keys}}}\n")
    assert what == "more than 1000 keys mean nothing in a recipe"


@pytest.mark.parametrize(
    "text",
    ["models: [{model: a, parameters: {weight: 0,5}}]", "models: [a]\nparameters: {lambda: [{filter: x, value: 0,5}]}"],
)
def test_a_decimal_comma_is_no_zero(problems, text):
    """YAML reads `{weight: 0,5}` as a weight of 0 and a key 5."""
    ((_, what, hint),) = problems(TIES + text + "\n")
    assert (what, hint) == ("'5' is a key without a value here", "A number takes a point: 0.5, not 0,5.")


def test_a_parameter_without_a_value_is_an_error_as_in_mergekit(problems):
    assert problems(TIES + "models: [a]\nparameters: {int8_mask: }\n")[0][1] == "'int8_mask' has no value"
