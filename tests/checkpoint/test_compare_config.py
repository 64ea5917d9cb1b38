import pytest

from rlmerge.checkpoint.compare_config import compare_configs

BASE = {
    "model_type": "qwen2",
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 3,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "rope_scaling": None,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
}


def differences(change, base=BASE):
    return {d.key: (d.ours, d.theirs, d.kind) for d in compare_configs(base, {**base, **change})}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"rms_norm_eps": 1e-5}, {"rms_norm_eps": (1e-6, 1e-5, "computation")}),
        ({"hidden_act": "gelu"}, {"hidden_act": ("silu", "gelu", "computation")}),
        ({"rope_theta": 1e4}, {"rope_theta": (1e6, 1e4, "computation")}),
        ({"tie_word_embeddings": True}, {"tie_word_embeddings": (False, True, "computation")}),
        ({"max_position_embeddings": 4096}, {"max_position_embeddings": (128, 4096, "length")}),
        ({"num_attention_heads": 8}, {"num_attention_heads": (4, 8, "computation")}),
        ({"final_logit_softcapping": 30.0}, {"final_logit_softcapping": (None, 30.0, "unsaid")}),
        ({"model_type": "llama"}, {"model_type": ("qwen2", "llama", "computation")}),
        ({"num_experts_per_tok": 4}, {"num_experts_per_tok": (None, 4, "unsaid")}),
        (
            {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}},
            {
                "rope_type": ("default", "yarn", "computation"),
                "factor": (None, 4.0, "computation"),
                "original_max_position_embeddings": (None, 32, "computation"),
            },
        ),
        (
            {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
            {
                "sliding_window": (None, 8, "computation"),
                "layer_types": (None, ["full_attention", "sliding_attention", "sliding_attention"], "computation"),
            },
        ),
    ],
)
def test_what_changes_the_computation(change, expected):
    assert differences(change) == expected


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"torch_dtype": "float32"},
        {"dtype": "bfloat16", "transformers_version": "5.0.0", "_name_or_path": "x", "use_cache": False},
        {"eos_token_id": 3, "pad_token_id": 0, "vocab_size": 9},
        {"attention_dropout": 0.1, "initializer_range": 0.5, "router_aux_loss_coef": 1.0, "resid_pdrop": 0.3},
        {"quantization_config": {"bits": 4}, "unsloth_version": "1", "auto_map": {"AutoConfig": "a.B"}},
        {"temperature": 0.5, "id2label": {"0": "x"}, "output_attentions": True},
        {"attention_bias": False, "final_logit_softcapping": None, "mlp_only_layers": []},
        {"rope_theta": 1000000, "sliding_window": 1, "max_window_layers": 2},
        {"head_dim": 16, "embedding_multiplier": 1.0},
        {"rope_scaling": {"rope_type": "default"}},
        {"rope_scaling": {"type": "linear", "factor": 1.0}},
    ],
)
def test_what_does_not(change):
    assert differences(change) == {}
    assert compare_configs({**BASE, **change}, BASE) == ()


V5 = {key: value for key, value in BASE.items() if key not in ("rope_theta", "rope_scaling")} | {
    "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"},
    "sliding_window": None,
    "layer_types": ["full_attention"] * 3,
}


def test_version_5_spells_the_same_otherwise():
    assert compare_configs(BASE, V5) == ()
    assert compare_configs(V5, BASE) == ()


def test_across_versions():
    yarn = {"rope_theta": 1e6, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
    new = {**V5, "rope_parameters": yarn}
    assert {d.key for d in compare_configs(BASE, new)} == {"rope_type", "factor", "original_max_position_embeddings"}
    old = {
        **BASE,
        "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 32},
    }
    assert compare_configs(old, new) == ()
    window = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}
    types = ["full_attention", "sliding_attention", "sliding_attention"]
    assert compare_configs({**BASE, **window}, {**V5, **window, "layer_types": types}) == ()


def test_a_window_that_is_switched_on_over_layers_said_to_have_none():
    switched = {**V5, "use_sliding_window": True, "sliding_window": 16}
    assert [str(d) for d in compare_configs(V5, switched)] == ["sliding_window 16 against unset"]


def test_a_theta_that_nobody_states_is_ten_thousand():
    old = {key: value for key, value in BASE.items() if key != "rope_theta"}
    assert [str(d) for d in compare_configs(old, BASE)] == ["rope_theta 1000000.0 against 10000.0"]
    assert compare_configs(old, {**BASE, "rope_theta": 10000}) == ()


def test_a_rotary_embedding_for_each_type_of_layer():
    old = {"model_type": "gemma3_text", "rope_theta": 1e6, "rope_local_base_freq": 1e4}
    new = {
        "model_type": "gemma3_text",
        "rope_parameters": {
            "full_attention": {"rope_theta": 1e6, "rope_type": "default"},
            "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
        },
    }
    assert compare_configs(old, new) == ()
    new["rope_parameters"]["sliding_attention"]["rope_theta"] = 2e4
    assert [str(d) for d in compare_configs(old, new)] == ["sliding_attention.rope_theta 20000.0 against 10000.0"]
    flat = {"model_type": "gemma3_text", "rope_theta": 1e6}
    assert [d.key for d in compare_configs(flat, new)] == ["sliding_attention.rope_theta"]
    assert [d.key for d in compare_configs(new, flat)] == ["sliding_attention.rope_theta"]


def test_a_part_of_the_width_rotates():
    old = {"model_type": "gpt_neox", "rotary_pct": 0.25, "rotary_emb_base": 10000}
    rope = {"rope_theta": 10000.0, "rope_type": "default", "partial_rotary_factor": 0.25}
    assert compare_configs(old, {"model_type": "gpt_neox", "rope_parameters": rope}) == ()
    assert [d.key for d in compare_configs({**old, "rotary_pct": 0.5}, old)] == ["partial_rotary_factor"]


def test_the_language_model_of_several():
    flat = {"model_type": "qwen2_vl", "rope_theta": 1e6, "rms_norm_eps": 1e-6, "vision_config": {"depth": 2}}
    nested = {
        "model_type": "qwen2_vl",
        "text_config": {"rope_theta": 1e6, "rms_norm_eps": 1e-6, "model_type": "qwen2_vl_text"},
        "vision_config": {"depth": 2},
    }
    assert compare_configs(flat, nested) == ()
    nested["text_config"]["rms_norm_eps"] = 1e-5
    nested["vision_config"]["depth"] = 3
    assert [str(d) for d in compare_configs(flat, nested)] == [
        "rms_norm_eps 1e-05 against 1e-06",
        "vision_config.depth 3 against 2",
    ]


def test_true_is_not_one():
    assert [d.key for d in compare_configs({"a": 1}, {"a": True})] == ["a"]


def test_strange_values_are_compared_all_the_same():
    odd = {
        "rope_scaling": "yarn",
        "num_attention_heads": "four",
        "layer_types": 3,
        "rope_parameters": [1],
        "text_config": 1,
    }
    assert compare_configs(odd, odd) == ()
    assert compare_configs({}, odd) is not None
    assert compare_configs(odd, BASE) is not None
    long = compare_configs({"a": [1]}, {"a": ["\n" * 99]})
    assert str(long[0]).endswith("... against [1]")


@pytest.mark.parametrize(
    "kind", ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", "gpt_neox", "olmo2"]
)
def test_what_transformers_writes_does_not_differ_from_itself(kind):
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.for_model(kind).to_dict()
    assert compare_configs(config, dict(config)) == ()
    text = "rms_norm_eps" if "rms_norm_eps" in config else "layer_norm_eps"
    assert [d.key for d in compare_configs(config, {**config, text: 0.5})] == [text]
