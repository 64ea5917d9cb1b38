import pytest

from rlmerge.recipe import load_recipe

TIES = "merge_method: ties\nbase_model: base\n"
SLERP = "merge_method: slerp\nbase_model: base\nparameters: {t: 0.5}\n"


def names(recipe):
    return [str(expert.model) for expert in recipe.experts]


def test_the_base_is_dropped_from_the_experts(load):
    recipe = load(TIES + "models:\n  - model: base\n  - model: a\n")
    assert names(recipe) == ["a"]
    assert recipe.warnings == ()


def test_parameters_of_the_base_are_ignored_with_a_warning(load):
    recipe = load(TIES + "models:\n  - model: base\n    parameters: {weight: 0.3, densty: 1}\n  - model: a\n")
    assert recipe.warnings == ("recipe:5: parameters of the base 'base' are ignored: it has no task vector",)


def test_the_base_is_recognised_under_another_spelling(load, tmp_path):
    (tmp_path / "base").mkdir()
    recipe = load({"merge_method": "ties", "base_model": tmp_path / "base", "models": [f"{tmp_path}/base/", "a"]})
    assert names(recipe) == ["a"]


def test_one_model_twice_is_kept_with_a_warning(load):
    recipe = load(TIES + "models:\n  - model: a\n  - model: a\n")
    assert names(recipe) == ["a", "a"]
    assert recipe.warnings == ("recipe:5: model 'a' is listed twice and counts twice",)


@pytest.mark.parametrize("models", ["[base, other]", "[other, base]", "[other]"])
def test_slerp_takes_the_base_and_one_other(load, models):
    assert names(load(SLERP + f"models: {models}\n")) == ["other"]


def test_slerp_refuses_three(problems):
    ((_, what, _),) = problems(SLERP + "models: [base, a, b]\n")
    assert what == "method 'slerp' takes exactly 1 model(s) besides the base, not 2"


def test_nuslerp_counts_with_and_without_a_base(load, problems):
    assert names(load("merge_method: nuslerp\nmodels: [a, b]\n")) == ["a", "b"]
    assert names(load("merge_method: nuslerp\nbase_model: c\nmodels: [a, b, c]\n")) == ["a", "b"]
    assert "takes exactly 2 model(s), not 1" in problems("merge_method: nuslerp\nmodels: [a]\n")[0][1]


def test_a_missing_base_is_an_error_with_both_ways_to_give_it(problems):
    ((_, what, hint),) = problems("merge_method: ties\nmodels: [a]\n")
    assert what == "method 'ties' needs a base model"
    assert "--base" in hint


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "lists no models"),
        ("models:\n", "lists no models"),
        ("models: []\n", "lists no model"),
        ("models: [base]\n", "at least 1"),
        ("models: a\n", "must be a list"),
        ("models: [[a]]\n", "must be a mapping"),
        ("models: [{parameters: {weight: 1}}]\n", "needs a `model`"),
        ("models: [{model: a, layer_range: [0, 2]}]\n", "unknown key 'layer_range'"),
        ("models: [a]\nslices: []\n", "not both"),
        ("modules: {text: {models: [a]}}\n", "`modules` is not supported yet"),
        ("slices: []\n", "must be a list"),
        ("slices: [{parameters: {lambda: 1}}]\n", "needs `sources`"),
        ("slices: [{sources: [a]}, {sources: [a]}]\n", "stacking several slices"),
        ("slices: [{sources: [{model: a, layer_range: [2, 4]}]}]\n", "some layers only"),
        ("slices: [{sources: [{model: a, layer_range: [0]}]}]\n", "two layer numbers"),
        ("slices: [{sources: [{model: a, layer_range: [0, x]}]}]\n", "two layer numbers"),
        ("slices: [{sources: [{model: a, layer_range: [0, 4]}, {model: b, layer_range: [0, 5]}]}]\n", "same `layer_"),
        ("slices: [{sources: [{model: a, layer_range: [0, 4]}, {model: b}]}]\n", "same `layer_range`"),
    ],
)
def test_what_cannot_be_run_is_one_error_with_a_place(problems, text, what):
    found = problems(TIES + text)
    assert len(found) == 1
    assert what in found[0][1]
    assert found[0][0].startswith("recipe:")


def test_one_slice_over_whole_models_is_the_models_form(load):
    sources = [{"model": name, "layer_range": [0, 24]} for name in ("base", "a", "b")]
    recipe = load({"merge_method": "ties", "slices": [{"sources": sources, "base_model": "base"}]})
    assert names(recipe) == ["a", "b"]
    assert recipe.depth == 24


MEASURED = "merge_method: measured\nbase_model: base\n"


def test_every_model_brings_the_directory_of_a_further_input(load):
    recipe = load(MEASURED + "models:\n  - {model: a, sensitivity: fisher/a}\n  - {model: b, sensitivity: 007}\n")
    assert recipe.inputs == {"sensitivity": ("fisher/a", "007")}
    assert "sensitivity: fisher/a" in recipe.text


def test_further_inputs_may_all_be_left_out(load):
    assert load(MEASURED + "models: [a, b]\n").inputs == {}


def test_one_model_without_the_input_that_another_has_is_an_error(problems):
    found = problems(MEASURED + "models:\n  - {model: a, sensitivity: fa}\n  - model: b\n")
    hint = "Give every model its `sensitivity:`, or none."
    assert found == [("recipe:5", "'b' has no `sensitivity`, but another model has one", hint)]


def test_the_input_of_a_base_is_ignored_with_a_warning(load):
    recipe = load(MEASURED + "models:\n  - {model: base, sensitivity: f0}\n  - {model: a, sensitivity: fa}\n")
    assert recipe.inputs == {"sensitivity": ("fa",)}
    assert recipe.warnings == ("recipe:4: the sensitivity of the base 'base' is ignored: it is not merged",)


def test_a_method_without_inputs_takes_none(problems):
    ((where, what, _),) = problems(TIES + "models:\n  - {model: a, sensitivity: fa}\n")
    assert (where, what) == ("recipe:4", "unknown key 'sensitivity' in a `models` entry")


def test_a_directory_among_the_parameters_is_sent_beside_the_model(problems):
    document = MEASURED + "models:\n  - {model: a, parameters: {sensitivity: fa}}\n"
    ((_, what, hint),) = problems(document)
    assert what == "'sensitivity' is no parameter but a directory"
    assert hint == "Write `sensitivity:` beside each `model:`."


def test_a_directory_must_be_named(problems):
    ((_, what, _),) = problems(MEASURED + "models:\n  - {model: a, sensitivity: [fa]}\n")
    assert what == "`sensitivity` must be text"


def test_a_base_beside_the_one_model_of_a_passthrough_is_only_a_reference():
    recipe = load_recipe(
        {
            "merge_method": "passthrough",
            "base_model": "base",
            "models": [{"model": "expert"}],
            "parameters": {"scale": 0.5},
        }
    )
    assert [source.model.reference for source in recipe.experts] == ["expert"]
    assert recipe.warnings == ()
