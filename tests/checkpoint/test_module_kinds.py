import pytest

from rlmerge.checkpoint.module_kinds import Place, place


@pytest.mark.parametrize(
    ("name", "kind", "layer"),
    [
        ("model.embed_tokens.weight", "embedding", None),
        ("lm_head.weight", "head", None),
        ("model.norm.weight", "norm", None),
        ("model.layers.31.self_attn.q_proj.weight", "attention q", 31),
        ("model.layers.3.self_attn.q_norm.weight", "norm", 3),
        ("model.layers.3.self_attn.o_proj.weight", "attention o", 3),
        ("model.layers.3.mlp.gate_proj.weight", "MLP gate", 3),
        ("model.layers.3.mlp.experts.17.down_proj.weight", "expert down", 3),
        ("model.layers.3.mlp.gate.weight", "router", 3),
        ("model.layers.0.block_sparse_moe.experts.3.w1.weight", "expert gate", 0),
        ("model.layers.0.mlp.gate_up_proj.weight", "MLP gate+up", 0),
        ("transformer.h.2.attn.c_attn.weight", "attention qkv", 2),
        ("transformer.h.2.attn.c_proj.weight", "attention o", 2),
        ("transformer.h.2.mlp.c_proj.weight", "MLP down", 2),
        ("transformer.ln_f.weight", "norm", None),
        ("gpt_neox.layers.1.attention.dense.weight", "attention o", 1),
        ("model.language_model.layers.5.mlp.up_proj.weight", "MLP up", 5),
        ("model.layers.5.linear_attn.A_log", "linear_attn.A_log", 5),
        ("strange.3.thing.weight", "strange.thing", None),
        ("weight", "weight", None),
    ],
)
def test_places(name, kind, layer):
    assert place(name) == Place(kind, layer)
