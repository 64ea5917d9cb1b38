import pytest

from rlmerge.errors import CheckpointError, RequestError
from rlmerge.moe.targets import TARGETS, Dense, choose_target, expert_name, layer_tensors, mixture_config

LLAMA = Dense("llama", 2, 8, 24)


@pytest.mark.parametrize(
    ("wish", "kind", "shared", "name"),
    [
        (None, "llama", 0, "mixtral"),
        (None, "mistral", 1, "deepseek"),
        (None, "qwen2", 1, "qwen"),
        (None, "qwen2", 2, "qwen"),
        (None, "qwen3", 0, "qwen3"),
        ("deepseek", "qwen3", 0, "deepseek"),
    ],
)
def test_which_architecture(wish, kind, shared, name):
    assert choose_target(wish, kind, shared, "base").name == name


def test_none_fits():
    with pytest.raises(RequestError, match="no mixture of experts is known for models of type 'qwen4'"):
        choose_target(None, "qwen4", 0, "base")
    with pytest.raises(RequestError, match=r"architecture mixtral is no mixture of 'qwen2'(?s:.*)qwen, deepseek"):
        choose_target("mixtral", "qwen2", 0, "base")


def test_names():
    assert expert_name(TARGETS["mixtral"], 3, 1, "up_proj") == "model.layers.3.block_sparse_moe.experts.1.w3.weight"
    assert expert_name(TARGETS["qwen"], 3, 1, "up_proj") == "model.layers.3.mlp.experts.1.up_proj.weight"


def test_theta_wherever_it_stands():
    target = TARGETS["mixtral"]

    def rope(**config):
        found = mixture_config(target, config, LLAMA, 4, 0, 2)
        return found.get("rope_theta"), found.get("rope_parameters")

    assert rope() == (10000.0, None)
    assert rope(rope_theta=5.0) == (5.0, None)
    assert rope(rope_parameters={"rope_type": "default"}) == (None, {"rope_type": "default", "rope_theta": 10000.0})
    assert rope(rope_parameters={"rope_theta": 7.0}, rope_theta=5.0) == (None, {"rope_theta": 7.0})


def test_what_a_configuration_leaves_out():
    found = mixture_config(TARGETS["mixtral"], {"num_attention_heads": 4}, Dense("mistral", 2, 8, 24), 4, 0, 3)
    assert (found["sliding_window"], found["num_key_value_heads"]) == (4096, 8)
    assert (found["num_local_experts"], found["num_experts_per_tok"]) == (4, 3)
    llama = mixture_config(TARGETS["mixtral"], {"num_attention_heads": 4, "mlp_bias": False}, LLAMA, 4, 0, 3)
    assert (llama["sliding_window"], llama["num_key_value_heads"]) == (None, 4)
    assert "mlp_bias" not in llama


def test_deepseek_rotates_whole_heads():
    found = mixture_config(TARGETS["deepseek"], {"rope_parameters": {"rope_theta": 1.0}}, LLAMA, 4, 2, 2)
    assert found["rope_parameters"] == {"rope_theta": 1.0, "partial_rotary_factor": 1.0}
    assert (found["n_routed_experts"], found["n_shared_experts"], found["first_k_dense_replace"]) == (4, 2, 0)


def test_parts_of_a_layer():
    assert "self_attn.q_proj.bias" in layer_tensors(TARGETS["qwen"], "qwen2", {})
    assert "self_attn.o_proj.bias" in layer_tensors(TARGETS["qwen3"], "qwen3", {"attention_bias": True})
    assert "self_attn.k_norm.weight" in layer_tensors(TARGETS["deepseek"], "qwen3", {})
    with pytest.raises(CheckpointError, match="has biases in its attention; MixtralForCausalLM has none"):
        layer_tensors(TARGETS["mixtral"], "llama", {"attention_bias": True})
