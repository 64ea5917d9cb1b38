import pytest

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
