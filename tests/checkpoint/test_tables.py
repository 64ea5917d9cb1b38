import numpy as np
import pytest

from rlmerge.checkpoint import ArraySource
from rlmerge.checkpoint.tables import embedding_rows, is_head, same_table, vocabulary_tables
from rlmerge.kernels.dtypes import FLOAT32


def tensors(shapes):
    return {name: ArraySource(name, FLOAT32, np.zeros(shape, np.float32), "m") for name, shape in shapes.items()}


FAMILIES = {
    "llama": (
        ["model.embed_tokens.weight", "lm_head.weight"],
        ["model.norm.weight", "model.layers.0.mlp.up_proj.weight"],
    ),
    "gpt2": (["transformer.wte.weight", "lm_head.weight"], ["transformer.wpe.weight"]),
    "neox": (["gpt_neox.embed_in.weight", "embed_out.weight"], ["gpt_neox.final_layer_norm.weight"]),
    "bloom": (["transformer.word_embeddings.weight"], ["transformer.word_embeddings_layernorm.weight"]),
    "t5": (["shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"], []),
    "bert": (
        ["bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight", "cls.predictions.bias"],
        ["bert.embeddings.position_embeddings.weight", "bert.embeddings.token_type_embeddings.weight"],
    ),
    "internlm": (["model.tok_embeddings.weight", "output.weight"], ["model.layers.0.attention.wqkv.weight"]),
    "mamba": (["backbone.embeddings.weight"], ["backbone.layers.0.norm.weight"]),
    "phi": (["model.embed_tokens.weight", "lm_head.weight", "lm_head.bias"], []),
    "chatglm": (
        ["transformer.embedding.word_embeddings.weight", "transformer.output_layer.weight"],
        ["transformer.rotary_pos_emb.inv_freq"],
    ),
    "vlm": (
        ["model.language_model.embed_tokens.weight", "lm_head.weight"],
        ["model.visual.patch_embed.proj.weight", "model.vision_tower.embeddings.position_embedding.weight"],
    ),
    "mtp": (
        ["model.embed_tokens.weight", "lm_head.weight", "model.layers.61.embed_tokens.weight",
         "model.layers.61.shared_head.head.weight"], ["model.layers.61.shared_head.norm.weight"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_families(family):
    named, others = FAMILIES[family]
    shapes = {name: (9,) if name.endswith("bias") else (9, 4) for name in named}
    found = vocabulary_tables(tensors({**shapes, **dict.fromkeys(others, (9, 4))}), {"vocab_size": 9})
    assert list(found) == named
    assert embedding_rows(tensors(shapes), None) == 9


def test_only_tables_with_the_rows_of_the_embedding():
    shapes = {"model.embed_tokens.weight": (9, 4), "lm_head.weight": (7, 4), "output.weight": (4, 9)}
    assert list(vocabulary_tables(tensors(shapes), None)) == ["model.embed_tokens.weight"]


def test_of_two_embeddings_the_configuration_tells():
    shapes = {
        "audio_model.embed_tokens.weight": (30, 4),
        "codes.embed_tokens.weight": (20, 4),
        "text.wte.weight": (9, 4),
    }
    assert embedding_rows(tensors(shapes), {"text_config": {"vocab_size": 9}}) == 9
    assert embedding_rows(tensors(shapes), {"vocab_size": 11}) == 20


def test_a_tied_model_stored_under_the_heads_name():
    assert embedding_rows(tensors({"lm_head.weight": (9, 4), "w": (4, 4)}), None) == 9


def test_a_model_without_a_vocabulary():
    assert embedding_rows(tensors({"w": (4, 4)}), {"vocab_size": 9}) is None
    assert vocabulary_tables(tensors({"w": (4, 4), "empty": ()}), None) == {}


def test_the_same_table_under_another_prefix():
    mine = tensors({"model.language_model.embed_tokens.weight": (9, 4), "lm_head.weight": (9, 4)})
    assert same_table("lm_head.weight", mine) is mine["lm_head.weight"]
    assert same_table("model.embed_tokens.weight", mine) is mine["model.language_model.embed_tokens.weight"]
    assert same_table("transformer.wte.weight", mine) is None
    two = tensors({"encoder.embed_tokens.weight": (9, 4), "decoder.embed_tokens.weight": (9, 4)})
    assert same_table("model.embed_tokens.weight", two) is None


def test_the_head_of_a_tied_model():
    tied = tensors({"model.embed_tokens.weight": (9, 4)})
    assert same_table("lm_head.weight", tied) is None
    assert same_table("lm_head.weight", tied, tied=True) is tied["model.embed_tokens.weight"]
    assert same_table("lm_head.bias", tied, tied=True) is None


def test_heads():
    assert is_head("lm_head.weight") and is_head("embed_out.weight") and is_head("cls.predictions.bias")
    assert not is_head("model.embed_tokens.weight")
