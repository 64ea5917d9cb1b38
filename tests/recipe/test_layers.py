import pytest

from rlmerge.recipe import layer_count, layer_index


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        ("model.layers.0.self_attn.q_proj.weight", 0),
        ("model.layers.31.mlp.experts.7.up_proj.weight", 31),
        ("transformer.h.5.ln_1.bias", 5),
        ("visual.blocks.12.attn.qkv.weight", 12),
        ("encoder.layer.3.output.dense.weight", 3),
        ("layers.2.weight", 2),
        ("model.embed_tokens.weight", None),
        ("model.norm.weight", None),
        ("lm_head.weight", None),
        ("classifier.2.weight", None),
        ("model.my_layers.3.weight", None),
    ],
)
def test_layer_index(tensor, expected):
    assert layer_index(tensor) == expected


def test_layer_count_is_one_more_than_the_last_layer():
    assert layer_count(["model.layers.0.w", "model.layers.11.w", "lm_head.weight"]) == 12
    assert layer_count(["lm_head.weight"]) == 0
