import pytest

from rlmerge.checkpoint.reindex import layer_kinds, reindexed
from rlmerge.errors import CheckpointError

S, F = "sliding_attention", "full_attention"


@pytest.mark.parametrize(
    ("config", "layers", "prefix", "expected"),
    [
        ({"num_hidden_layers": 4}, [0, 1, 1, 3, 2], "model.layers", {"num_hidden_layers": 5}),
        ({"n_layer": 3, "n_head": 3}, [2], "transformer.h", {"n_layer": 1, "n_head": 3}),
        (
            {"num_hidden_layers": 4, "layer_types": [S, F, S, F]},
            [0, 1, 1],
            "model.layers",
            {"num_hidden_layers": 3, "layer_types": [S, F, F]},
        ),
        (
            {
                "num_hidden_layers": 3,
                "no_rope_layers": [1, 0, 1],
                "architectures": ["a", "b", "c"],
                "section": [1, 2, 3],
            },
            [1, 2],
            "model.layers",
            {"num_hidden_layers": 2, "no_rope_layers": [0, 1], "architectures": ["a", "b", "c"], "section": [1, 2, 3]},
        ),
        (
            {"num_hidden_layers": 4, "mlp_only_layers": [0, 3]},
            [3, 3, 1, 0],
            "model.layers",
            {"num_hidden_layers": 4, "mlp_only_layers": [0, 1, 3]},
        ),
        (
            {"num_hidden_layers": 4, "first_k_dense_replace": 2},
            [0, 1, 1, 2, 3],
            "model.layers",
            {"num_hidden_layers": 5, "first_k_dense_replace": 3},
        ),
        (
            {"num_hidden_layers": 4, "hybrid_override_pattern": "M-M*"},
            [3, 0],
            "backbone.layers",
            {"num_hidden_layers": 2, "hybrid_override_pattern": "*M"},
        ),
        (
            {"num_hidden_layers": 4, "decoder_sparse_step": 2, "mlp_only_layers": [1]},
            [1, 2, 3, 3],
            "model.layers",
            # layers 0, 2 (by the step) and 1 (by name) are dense, so 1 and 2 of the four picked here
            {"num_hidden_layers": 4, "decoder_sparse_step": 1, "mlp_only_layers": [0, 1]},
        ),
        (
            {"num_hidden_layers": 4, "interleave_moe_layer_step": 2},
            [1, 3, 0],
            "model.layers",
            {"num_hidden_layers": 3, "interleave_moe_layer_step": 2, "moe_layers": [0, 1]},
        ),
        (
            {"num_hidden_layers": 4, "sliding_window_pattern": 2},
            [1, 1, 2],
            "model.layers",
            {"num_hidden_layers": 3, "sliding_window_pattern": 2, "layer_types": [F, F, S]},
        ),
        (
            {"num_hidden_layers": 4, "use_sliding_window": True, "max_window_layers": 2},
            [3, 0],
            "model.layers",
            {"num_hidden_layers": 2, "use_sliding_window": True, "max_window_layers": 2, "layer_types": [S, F]},
        ),
        (
            {"num_hidden_layers": 4, "model_type": "gemma2"},
            [0, 0, 1],
            "model.layers",
            {"num_hidden_layers": 3, "model_type": "gemma2", "layer_types": [S, S, F]},
        ),
        (
            {"num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1},
            [2, 3, 0, 1],
            "model.layers",
            {"num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1},
        ),
    ],
)
def test_layers(config, layers, prefix, expected):
    assert reindexed(config, layers, prefix) == expected


VLM = {
    "model_type": "vlm",
    "num_hidden_layers": 2,
    "text_config": {"num_hidden_layers": 2, "layer_types": [S, F]},
    "vision_config": {"depth": 3, "fullatt_block_indexes": [2], "layer_types": ["a", "b", "c"]},
    "audio_config": {"encoder_layers": 5},
}


@pytest.mark.parametrize("prefix", ["model.language_model.layers", "language_model.model.layers", "model.layers", ""])
def test_the_language_model_of_several(prefix):
    found = reindexed(VLM, [1], prefix)
    assert found["text_config"] == {"num_hidden_layers": 1, "layer_types": [F]}
    assert found["num_hidden_layers"] == 1
    assert found["vision_config"] == VLM["vision_config"]


@pytest.mark.parametrize("prefix", ["model.visual.blocks", "model.vision_tower.encoder.layers", "visual.blocks"])
def test_the_vision_tower(prefix):
    found = reindexed(VLM, [2, 0], prefix)
    assert found["vision_config"] == {"depth": 2, "fullatt_block_indexes": [0], "layer_types": ["c", "a"]}
    assert found["text_config"] == VLM["text_config"]
    assert found["num_hidden_layers"] == 2


def test_the_audio_tower():
    assert reindexed(VLM, [0], "model.audio_tower.layers")["audio_config"] == {"encoder_layers": 1}


def test_encoder_and_decoder():
    t5 = {"num_layers": 3, "num_decoder_layers": 4}
    assert reindexed(t5, [0], "encoder.block") == {"num_layers": 1, "num_decoder_layers": 4}
    assert reindexed(t5, [3, 3], "decoder.block") == {"num_layers": 3, "num_decoder_layers": 2}


@pytest.mark.parametrize(
    ("config", "layers", "message"),
    [
        ({"num_hidden_layers": 2}, [0, 2], r"layer 2 does not exist: config\.json says num_hidden_layers 2"),
        ({"num_hidden_layers": 2}, [-1], "layer -1 does not exist"),
        ({"num_hidden_layers": 4, "first_k_dense_replace": 1}, [1, 0], "a dense layer follows a sparse one"),
        ({"num_hidden_layers": 4, "attn_layer_period": 2}, [1], "layer 1 cannot become 0"),
        ({"num_hidden_layers": 4, "full_attention_interval": 4}, [1], "layer 1 cannot become 0"),
        ({"hidden_size": 4}, [0], "names no number of layers for 'model.layers'"),
        ({"num_hidden_layers": True}, [0], "names no number of layers"),
    ],
)
def test_what_cannot_be_described(config, layers, message):
    with pytest.raises(CheckpointError, match=message):
        reindexed(config, layers, "model.layers")


def test_an_interval_that_is_spelt_out_does_not_bind():
    config = {"num_hidden_layers": 2, "full_attention_interval": 2, "layer_types": [S, F]}
    assert reindexed(config, [1])["layer_types"] == [F]


def test_kinds_of_layers():
    kinds = layer_kinds({"num_hidden_layers": 3, "layer_types": [S, F, S], "mlp_only_layers": [2]})
    assert kinds[0] != kinds[1] and kinds[0] != kinds[2] and kinds[1] != kinds[2]
    assert layer_kinds({"num_hidden_layers": 3, "layer_types": [S, F, S]})[0::2] == (kinds[0][:1] + kinds[0][2:],) * 2
    dense = layer_kinds({"num_hidden_layers": 3, "first_k_dense_replace": 1})
    assert dense[0] != dense[1] == dense[2]
    plain = layer_kinds({"num_hidden_layers": 2})
    assert plain[0] == plain[1] == layer_kinds({"num_hidden_layers": 9})[8]


@pytest.mark.parametrize(
    "kind", ["qwen2", "gemma2", "gemma3_text", "llama4_text", "qwen3_moe", "deepseek_v3", "cohere2"]
)
def test_transformers_accepts_the_result(kind):
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.for_model(kind, num_hidden_layers=12).to_dict()
    layers = [0, 1, 2, 2, 11, 10, 5]
    found = transformers.AutoConfig.for_model(**{**reindexed(config, layers, "model.layers"), "model_type": kind})
    assert found.num_hidden_layers == 7
    if config.get("layer_types"):
        assert found.layer_types == [config["layer_types"][i] for i in layers]
