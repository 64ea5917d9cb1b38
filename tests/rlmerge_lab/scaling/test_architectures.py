"""Parameter counts against the totals the models' publishers state (safetensors totals of their repositories)."""

import pytest

from rlmerge_lab.scaling.architectures import ARCHITECTURES, LLAMA_70B, Architecture

PUBLISHED = {
    "Qwen2.5-3B": 3_085_938_688,
    "Llama-3.2-3B": 3_212_749_824,
    "Llama-2-7B": 6_738_415_616,
    "Qwen2.5-7B": 7_615_616_512,
    "Llama-3.1-8B": 8_030_261_248,
    "Llama-2-13B": 13_015_864_320,
    "Qwen3-30B-A3B": 30_532_122_624,
    "Llama-3.1-70B": 70_553_706_496,
    "Qwen2.5-72B": 72_706_203_648,
    "Llama-3.1-405B": 405_853_388_800,
}


@pytest.mark.parametrize("model", ARCHITECTURES, ids=lambda model: model.name)
def test_parameters_add_up_to_the_published_total(model):
    assert model.parameters == PUBLISHED[model.name]


def test_a_70b_llama_has_the_723_tensors_of_table_3():
    kinds = [tensor.kind for tensor in LLAMA_70B.tensors()]
    counts = {kind: kinds.count(kind) for kind in set(kinds)}
    assert counts == {"attention": 320, "mlp": 240, "norm": 161, "embedding": 1, "head": 1}
    assert len({tensor.name for tensor in LLAMA_70B.tensors()}) == 723
    assert LLAMA_70B.largest.shape == (128256, 8192)


def test_a_tiny_model_by_hand():
    tiny = Architecture("tiny", 4, 1, 6, 2, 1, 10, head_size=2, tied=True)
    shapes = {t.name.removeprefix("model.layers.0."): t.shape for t in tiny.tensors()}
    assert shapes["self_attn.q_proj.weight"] == (4, 4) and shapes["self_attn.k_proj.weight"] == (2, 4)
    assert shapes["mlp.down_proj.weight"] == (4, 6) and "lm_head.weight" not in shapes
    # Embedding 40, q and o 16 each, k and v 8 each, MLP 3 × 24, three norms of 4.
    assert tiny.parameters == 40 + 2 * 16 + 2 * 8 + 72 + 12
