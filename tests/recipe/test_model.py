import numpy as np
import pytest

from rlmerge.errors import RecipeError
from rlmerge.recipe import ModelRef

GRADIENTS = """
merge_method: ties
base_model: base
models:
  - model: a
    parameters:
      density: [1.0, 0.5]
      weight:
        - {filter: mlp, value: [0.0, 1.0]}
        - {filter: attn, value: 0.3}
  - model: b
parameters:
  weight: 0.7
  lambda: [{filter: "*", value: [1, 2, 4]}]
  normalize: false
"""


def test_values_by_hand(load):
    """Five layers: layer 1 stands at 1/4 of a gradient. Own filters first, then the top level, then the default."""
    values = load(GRADIENTS).values("model.layers.1.mlp.up_proj.weight", 5)
    assert list(values) == ["weight", "density", "scale", "normalize"]
    np.testing.assert_array_equal(values["weight"], [0.25, 0.7])
    np.testing.assert_array_equal(values["density"], [0.875, 1.0])
    assert values["weight"].dtype == np.float64
    assert (values["scale"], values["normalize"]) == (1.5, False)


def test_a_filter_that_misses_falls_through_to_the_top_level(load):
    recipe = load(GRADIENTS)
    np.testing.assert_array_equal(recipe.values("model.layers.4.attn.q", 5)["weight"], [0.3, 0.7])
    np.testing.assert_array_equal(recipe.values("model.norm.weight", 5)["weight"], [0.7, 0.7])


@pytest.mark.parametrize(
    ("tensor", "layers", "scale"),
    [
        ("model.embed_tokens.weight", 5, 1.0),
        ("lm_head.weight", 5, 1.0),
        ("model.layers.0.w", 5, 1.0),
        ("model.layers.4.w", 5, 4.0),
        ("model.layers.0.w", 1, 4.0),
        ("model.layers.9.w", 5, 4.0),
    ],
)
def test_gradients_start_at_the_first_layer_and_outside_the_layers(load, tensor, layers, scale):
    assert load(GRADIENTS).values(tensor, layers)["scale"] == scale


def test_static_values_are_booleans_and_choices_only(load):
    assert load(GRADIENTS).static() == {"normalize": False}


def test_unused_filters(load):
    assert load(GRADIENTS).unused_filters(["model.layers.0.mlp.up"]) == ("attn",)


def test_a_gap_in_a_parameter_without_default_is_an_error(load):
    recipe = load("merge_method: slerp\nbase_model: b\nmodels: [a]\nparameters: {t: [{filter: mlp, value: 1}]}\n")
    assert recipe.values("mlp", 2) == {"t": 1.0}
    with pytest.raises(RecipeError, match="no value of 't' for tensor 'norm'"):
        recipe.values("norm", 2)


def test_a_slice_that_is_not_the_whole_model_is_found_when_the_layers_are_known(load):
    slices = [{"sources": [{"model": name, "layer_range": [0, 24]} for name in "ab"]}]
    recipe = load({"merge_method": "ties", "base_model": "b", "slices": slices})
    assert (recipe.is_whole, recipe.depth) == (True, 24)
    assert recipe.values("lm_head.weight", 24)
    with pytest.raises(RecipeError, match="ends at 24, but the models have 32 layers"):
        recipe.values("lm_head.weight", 32)


LEVELS = """
merge_method: ties
base_model: base
modules:
  text:
    slices:
    - sources:
      - {model: base, layer_range: [0, 2]}
      - model: a
        layer_range: [4, 6]
        parameters: {weight: [{filter: layers.5., value: 0.1}], density: [0.2, 0.4]}
      - {model: b, layer_range: [2, 4]}
      parameters: {weight: [{filter: attn, value: 0.2}], lambda: [{filter: layers.5., value: 9}]}
    parameters: {weight: [{filter: mlp.up, value: 0.3}], normalize: false, density: [{filter: mlp, value: 0.5}]}
parameters: {weight: [{filter: mlp, value: 0.4}], lambda: [1, 3]}
"""


@pytest.mark.parametrize(
    ("name", "weight", "density"),
    [
        # output layer 1 is layer 5 of a and layer 3 of b: filters of values per expert see those numbers
        ("attn.q", [0.1, 0.2], [0.4, 1.0]),
        ("mlp.up", [0.1, 0.3], [0.4, 0.5]),
        ("mlp.down", [0.1, 0.4], [0.4, 0.5]),
        ("norm", [0.1, 1.0], [0.4, 1.0]),
    ],
)
def test_source_then_slice_then_module_then_recipe(load, name, weight, density):
    recipe = load(LEVELS)
    module = recipe.modules[0]
    values = recipe.values_at(
        module,
        module.slices[0],
        output_name=f"layers.1.{name}",
        source_names=[f"layers.5.{name}", f"layers.3.{name}"],
        position=1.0,
    )
    np.testing.assert_array_equal(values["weight"], weight)
    np.testing.assert_array_equal(values["density"], density)
    assert values["scale"] == 3.0, "a filter of a value for all experts looks at the output's name"
    assert values["normalize"] is False


def test_values_for_all_experts_look_at_the_output_name(load):
    recipe = load(LEVELS.replace("layers.5., value: 9", "layers.1., value: 9"))
    module = recipe.modules[0]
    names = {"output_name": "layers.1.x", "source_names": ["layers.5.x", "layers.3.x"]}
    assert recipe.values_at(module, module.slices[0], **names, position=0.5)["scale"] == 9


def test_there_is_one_name_a_source(load):
    recipe = load(LEVELS)
    module = recipe.modules[0]
    with pytest.raises(ValueError, match="shorter"):
        recipe.values_at(module, module.slices[0], output_name="x", source_names=["x"], position=0)


def test_static_values_of_a_slice(load):
    first, second = "{model: a, layer_range: [0, 2]}", "{model: a, layer_range: [2, 4]}"
    recipe = load(
        f"merge_method: linear\nslices:\n  - sources: [{first}]\n"
        f"  - {{sources: [{second}], parameters: {{normalize: false}}}}\n"
    )
    (module,) = recipe.modules
    assert [recipe.static(module, part) for part in module.slices] == [{"normalize": True}, {"normalize": False}]
    assert recipe.static() == {"normalize": True}


def test_slices_and_modules_have_no_one_list_of_experts(load):
    recipe = load(LEVELS)
    assert not recipe.is_whole
    for ask in (lambda: recipe.experts, lambda: recipe.inputs, lambda: recipe.values("x", 4)):
        with pytest.raises(RecipeError, match="no one list of experts"):
            ask()
    assert [str(model) for model in recipe.models] == ["base", "a", "b"]


def test_models_are_listed_once_in_order(load):
    text = "merge_method: linear\nslices:\n"
    for names in ("ab", "bc", "a"):
        sources = ", ".join(f"{{model: {name}, layer_range: [0, 1]}}" for name in names)
        text += f"  - sources: [{sources}]\n"
    recipe = load(text + "tokenizer_source: d\nchat_template: org/e\n")
    assert [str(model) for model in recipe.models] == ["a", "b", "c", "d", "org/e"]


def test_map_models_reaches_every_model(load):
    text = (
        LEVELS
        + "tokenizer: {source: c, tokens: {x: {source: {kind: model_token, model: d, token: y}}}}\n"
        + "chat_template: org/e\n"
    )
    recipe = load(text)
    found = recipe.map_models(lambda model: ModelRef(model.reference, "c0ffee"))
    assert [str(model) for model in found.models] == [
        f"{name}@c0ffee" for name in ("base", "a", "b", "c", "d", "org/e")
    ]
    assert found.chat_template.text == "org/e@c0ffee"
    assert found.map_models(lambda model: ModelRef(model.reference)) == recipe


def test_unused_filters_of_every_level(load):
    recipe = load(LEVELS)
    assert set(recipe.unused_filters(["layers.5.mlp.down"])) == {"attn", "mlp.up"}
    assert recipe.unused_filters(["layers.5.mlp.up", "attn"]) == ()
