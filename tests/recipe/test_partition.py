from rlmerge.recipe import load_recipe

TIES = "merge_method: ties\nbase_model: base\n"
SLERP = "merge_method: slerp\nbase_model: base\nparameters: {t: 0.5}\n"


def names(recipe):
    return [str(expert.model) for expert in recipe.experts]


def only(recipe):
    """The one slice of a recipe."""
    ((_, part),) = recipe.slices
    return part


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


def test_an_adapter_on_the_base_is_an_expert(load):
    recipe = load(TIES + "models: [base, base+math-lora]\n")
    assert names(recipe) == ["base+math-lora"]


def test_one_model_twice_is_kept_with_a_warning(load):
    recipe = load(TIES + "models:\n  - model: a\n  - model: a\n")
    assert names(recipe) == ["a", "a"]
    assert recipe.warnings == ("recipe:5: model 'a' is listed twice and counts twice",)


def test_slerp_takes_the_base_and_one_other(load):
    for models in ("[base, other]", "[other, base]", "[other]"):
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


def test_a_merge_of_the_base_alone_is_most_likely_a_mistake(problems):
    ((_, what, _),) = problems(TIES + "models: [base]\n")
    assert what == "method 'ties' takes at least 1 model(s) besides the base, not 0"


def test_a_slice_or_module_of_the_base_alone_is_a_copy_of_it(load, warned):
    slices = TIES + "slices: [{sources: [{model: base, layer_range: [4, 6]}]}]\n"
    part = only(load(slices))
    assert (part.sources, str(part.base), part.base_range, part.length) == ((), "base", (4, 6), 2)
    assert warned(slices) == ["only the base 'base' is listed: its tensors are copied"]
    module = load(TIES + "modules: {vision: {models: [base]}, text: {models: [a]}}\n").modules[0]
    assert (module.slices[0].sources, str(module.slices[0].base)) == ((), "base")


def test_a_method_of_two_models_never_copies(problems):
    ((_, what, _),) = problems(SLERP + "slices: [{sources: [{model: base, layer_range: [0, 2]}]}]\n")
    assert what == "method 'slerp' takes exactly 1 model(s) besides the base, not 0"


def test_slices_need_the_base_among_their_sources(problems):
    text = TIES + "slices:\n  - sources: [{model: a, layer_range: [0, 2]}]\n"
    ((where, what, hint),) = problems(text)
    assert where == "recipe:4"
    assert what == "method 'ties' needs the base 'base' among the sources of each slice"
    assert "layer_range" in hint


def test_base_and_experts_of_a_slice_may_start_at_different_layers(load):
    text = TIES + "slices: [{sources: [{model: a, layer_range: [4, 6]}, {model: base, layer_range: [0, 2]}]}]\n"
    part = only(load(text))
    assert [(str(s.model), s.layer_range) for s in part.sources] == [("a", (4, 6))]
    assert part.base_range == (0, 2)


def test_other_layers_of_the_base_are_an_expert(load):
    """Merging a model with itself: the first entry of the base is the base."""
    sources = "[{model: base, layer_range: [0, 2]}, {model: base, layer_range: [2, 4]}]"
    recipe = load(f"merge_method: slerp\nbase_model: base\nparameters: {{t: 0.5}}\nslices: [{{sources: {sources}}}]\n")
    part = only(recipe)
    assert ([s.layer_range for s in part.sources], part.base_range) == ([(2, 4)], (0, 2))
    assert recipe.warnings == ()


def test_a_slice_may_have_a_base_of_its_own(load):
    text = "merge_method: ties\nslices:\n"
    for base in ("b1", "b2"):
        sources = f"[{{model: {base}, layer_range: [0, 2]}}, {{model: a, layer_range: [0, 2]}}]"
        text += f"  - {{base_model: {base}, sources: {sources}}}\n"
    recipe = load(text)
    assert recipe.base is None
    assert [str(part.base) for _, part in recipe.slices] == ["b1", "b2"]
    assert [str(model) for model in recipe.models] == ["b1", "a", "b2"]


def test_a_base_that_all_slices_share_is_the_recipes(load):
    sources = [{"model": name, "layer_range": [0, 24]} for name in ("base", "a", "b")]
    recipe = load({"merge_method": "ties", "slices": [{"sources": sources, "base_model": "base"}]})
    assert str(recipe.base) == "base"
    assert names(recipe) == ["a", "b"]
    assert recipe.depth == 24


LINEAR = "merge_method: linear\nbase_model: base\n"


def test_an_average_takes_in_an_unlisted_base_that_has_every_value(load):
    """As in mergekit: measured on 0.1.5, `linear` with one weight for all and `karcher` average three models here."""
    recipe = load(LINEAR + "models: [a, b]\nparameters: {weight: 0.5}\n")
    assert names(recipe) == ["a", "b", "base"]
    assert "averages the base in, as mergekit does" in recipe.warnings[0]
    assert names(load("merge_method: karcher\nbase_model: base\nmodels: [a, b]\n")) == ["a", "b", "base"]


def test_an_average_leaves_out_an_unlisted_base_without_a_weight(load):
    """mergekit stops at its missing weight."""
    recipe = load(LINEAR + "models: [{model: a, parameters: {weight: 0.5}}]\nparameters: {normalize: false}\n")
    assert names(recipe) == ["a"]
    assert recipe.warnings == ("recipe:2: 'linear' averages only the listed models; the base is not among them",)
    partly = LINEAR + "models: [{model: a, parameters: {weight: 1}}]\nparameters: {weight: {filter: mlp, value: 1}}\n"
    assert names(load(partly)) == ["a"]


def test_an_average_over_slices_leaves_out_what_is_not_listed(load):
    recipe = load(LINEAR + "parameters: {weight: 1}\nslices: [{sources: [{model: a, layer_range: [0, 2]}]}]\n")
    part = only(recipe)
    assert [str(source.model) for source in part.sources] == ["a"]
    assert (part.base, str(recipe.base)) == (None, "base")


def test_linear_averages_a_listed_base(load):
    recipe = load("merge_method: linear\nbase_model: base\nmodels: [a, base]\nparameters: {weight: 1}\n")
    assert names(recipe) == ["a", "base"]
    assert recipe.warnings == ()


def test_a_base_beside_the_one_model_of_a_passthrough_is_only_a_reference():
    recipe = load_recipe(
        {
            "merge_method": "passthrough",
            "base_model": "base",
            "models": [{"model": "expert"}],
            "parameters": {"scale": 0.5},
        }
    )
    assert names(recipe) == ["expert"]
    assert recipe.warnings == ()


def test_passthrough_takes_one_source_a_slice(problems):
    sources = "[{model: a, layer_range: [0, 2]}, {model: b, layer_range: [0, 2]}]"
    ((where, what, _),) = problems(f"merge_method: passthrough\nslices:\n  - sources: {sources}\n")
    assert (where, what) == ("recipe:3", "method 'passthrough' takes exactly 1 model(s), not 2")


def test_a_parameter_without_default_must_be_given_at_some_level(load, problems):
    head = "merge_method: slerp\nbase_model: b\n"
    ((_, what, hint),) = problems(head + "models: [a]\n")
    assert what == "method 'slerp' needs parameter 't'"
    assert hint == "0 is the base, 1 the other model."
    slices = "slices:\n"
    for more in ("parameters: {t: 0.5}, ", ""):
        slices += f"  - {{{more}sources: [{{model: b, layer_range: [0, 2]}}, {{model: a, layer_range: [0, 2]}}]}}\n"
    assert problems(head + slices)[0][0] == "recipe:5"
    assert load(head + slices + "parameters: {t: 1}\n")


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


def test_an_input_that_the_method_does_not_take_is_foreign(warned):
    found = warned(TIES + "models:\n  - {model: a, sensitivity: fa}\n")
    assert found == ["unknown key 'sensitivity' in a `models` entry: ignored, as in mergekit"]


def test_a_directory_among_the_parameters_is_sent_beside_the_model(problems):
    document = MEASURED + "models:\n  - {model: a, parameters: {sensitivity: fa}}\n"
    ((_, what, hint),) = problems(document)
    assert what == "'sensitivity' is not a parameter but a directory"
    assert hint == "Write `sensitivity:` beside each `model:`."


def test_a_directory_must_be_named(problems):
    ((_, what, _),) = problems(MEASURED + "models:\n  - {model: a, sensitivity: [fa]}\n")
    assert what == "`sensitivity` must be text"
