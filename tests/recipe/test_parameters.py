import pytest

from rlmerge.recipe import Setting

DARE = "merge_method: dare_linear\nbase_model: base\nmodels: [a]\n"


def parameters(load, text):
    return load(DARE + f"parameters: {{{text}}}\n").parameters


def refused(problems, text):
    return [what for _, what, _ in problems(DARE + f"parameters: {{{text}}}\n")]


@pytest.mark.parametrize(("written", "meant"), [("true", "inverse"), ("false", "none"), ("l1", "l1"), ("none", "none")])
def test_a_boolean_where_there_is_a_choice_means_the_default_or_none(load, written, meant):
    assert parameters(load, f"rescale: {written}") == {"rescale": Setting.constant(meant)}


def test_true_means_mergekits_choice_under_compat(load):
    recipe = load(DARE + "compat: mergekit\nparameters: {rescale: true}\n")
    assert recipe.static() == {"rescale": "l1"}


@pytest.mark.parametrize(("written", "meant"), [("1", True), ("0", False), ("0.0", False), ("no", False)])
def test_zero_and_one_are_booleans_where_one_is_due(load, written, meant):
    recipe = load(f"merge_method: linear\nmodels: [a]\nparameters: {{normalize: {written}}}\n")
    assert recipe.static() == {"normalize": meant}


def test_integers_become_numbers(load):
    value = parameters(load, "weight: 2")["weight"].only
    assert value == 2
    assert isinstance(value, float)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("density: 0", "'density' must be above 0, not 0"),
        ("density: [0.5, 1.5]", "'density' must be at most 1, not 1.5"),
        ("density: [{filter: mlp, value: [0.5, -2]}, {value: 1}]", "'density' must be above 0, not -2"),
        ("weight: '0.5'", "'weight' must be a number, not '0.5'"),
        ("weight: true", "'weight' must be a number, not True"),
        ("weight: null", "'weight' must be a number, not None"),
        ("weight: .inf", "'weight' must be finite, not inf"),
        ("weight: .nan", "'weight' must be a number, not nan"),
        (f"weight: 1{'0' * 400}", "'weight' must be finite, not inf"),
        ("rescale: l3", "'rescale' must be one of inverse, l1, none, not 'l3'"),
        ("rescale: [{filter: mlp, value: l1}]", "'rescale' cannot vary from tensor to tensor"),
        ("lambada: 1", "method 'dare_linear' has no parameter 'lambada'"),
    ],
)
def test_values_a_parameter_cannot_take(problems, text, what):
    assert refused(problems, text) == [what]


def test_every_bad_value_of_a_list_is_reported(problems):
    assert len(refused(problems, "density: [-1, 0.5, 3]")) == 2


def test_a_parameter_of_the_merge_given_for_one_model(problems):
    text = "merge_method: ties\nbase_model: b\nmodels: [{model: a, parameters: {normalize: true, lambda: 2}}]\n"
    found = problems(text)
    assert [what for _, what, _ in found] == [
        "'normalize' of method 'ties' has one value for all models",
        "'lambda' of method 'ties' has one value for all models",
    ]
    assert "top-level" in found[0][2]


def test_parameters_that_mergekit_ignores_are_ignored_with_a_warning(load, problems):
    recipe = load(
        "merge_method: task_arithmetic\nbase_model: b\nmodels: [{model: a, parameters: {density: 0.5}}]\n"
        "parameters: {int8_mask: true}\n"
    )
    assert sorted(w.split(": ", 1)[1] for w in recipe.warnings) == [
        "'density' has no effect on task_arithmetic: ignored, as in mergekit",
        "'int8_mask' has no effect on task_arithmetic: ignored, as in mergekit",
    ]
    found = problems("merge_method: linear\nmodels: [a]\nparameters: {density: 1}\n")
    assert "no parameter 'density'" in found[0][1]


def test_switching_off_what_a_method_does_not_do_is_no_error(load, problems):
    ties = "merge_method: ties\nbase_model: b\nmodels: [a]\n"
    assert "'rescale' has no effect" in load(ties + "parameters: {rescale: false}\n").warnings[0]
    assert "no parameter 'rescale'" in problems(ties + "parameters: {rescale: true}\n")[0][1]


def test_a_parameter_without_default_must_be_given(problems):
    ((_, what, hint),) = problems("merge_method: slerp\nbase_model: b\nmodels: [a]\n")
    assert what == "method 'slerp' needs parameter 't'"
    assert hint == "0 is the base, 1 the other model."


def test_parameters_must_be_a_mapping_and_a_method_may_have_none(problems):
    assert "must be a mapping" in problems(DARE + "parameters: [1]\n")[0][1]
    found = problems("merge_method: plain\nbase_model: b\nmodels: [a]\nparameters: {weight: 1}\n")
    assert found[0][1:] == ("method 'plain' has no parameters", "Remove 'weight'.")
