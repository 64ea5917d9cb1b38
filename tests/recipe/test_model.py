import numpy as np
import pytest

from rlmerge.errors import RecipeError

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
    slices = [{"sources": [{"model": "a", "layer_range": [0, 24]}]}]
    recipe = load({"merge_method": "ties", "base_model": "b", "slices": slices})
    assert recipe.values("lm_head.weight", 24)
    with pytest.raises(RecipeError, match="ends at 24, but the models have 32 layers"):
        recipe.values("lm_head.weight", 32)
