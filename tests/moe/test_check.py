"""What makes a model the base or an expert, on models written by hand."""

import numpy as np
import pytest

from rlmerge.checkpoint import open_checkpoint
from rlmerge.errors import CheckpointError
from rlmerge.moe.check import base_tensors, check_expert, check_mlps, check_vocabularies, read_dense
from rlmerge.moe.targets import TARGETS, Dense
from support.models import write_model
from support.tokenizers import write_tokenizer

CONFIG = {"model_type": "llama", "num_hidden_layers": 1, "hidden_size": 2, "num_attention_heads": 1, "vocab_size": 4}
PLACE = "model.layers.0"
TENSORS = {
    "model.embed_tokens.weight": np.zeros((4, 2)),
    "model.norm.weight": np.zeros(2),
    "lm_head.weight": np.zeros((4, 2)),
    f"{PLACE}.input_layernorm.weight": np.zeros(2),
    f"{PLACE}.post_attention_layernorm.weight": np.zeros(2),
    **{f"{PLACE}.self_attn.{name}_proj.weight": np.zeros((2, 2)) for name in "qkvo"},
    f"{PLACE}.mlp.gate_proj.weight": np.zeros((3, 2)),
    f"{PLACE}.mlp.up_proj.weight": np.zeros((3, 2)),
    f"{PLACE}.mlp.down_proj.weight": np.zeros((2, 3)),
}
DENSE = Dense("llama", 1, 2, 3)


def model(folder, name="base", *, without=(), config=CONFIG, **more):
    tensors = {key: value for key, value in TENSORS.items() if key not in without}
    added = {key.replace("__", "."): value for key, value in more.items()}
    return open_checkpoint(write_model(folder / name, {**tensors, **added}, config=config))


def test_sizes(tmp_path):
    assert read_dense(model(tmp_path)) == DENSE
    for wrong in ({"num_hidden_layers": 10**9}, {"hidden_size": "2"}, {"model_type": None}, {"num_hidden_layers": 0}):
        with pytest.raises(CheckpointError, match="states no model_type"):
            read_dense(model(tmp_path, config={**CONFIG, **wrong}))


def test_what_the_base_gives(tmp_path):
    inverse = {f"{PLACE}.self_attn.rotary_emb.inv_freq".replace(".", "__"): [1.0]}
    found = base_tensors(model(tmp_path, **inverse), DENSE, TARGETS["mixtral"])
    assert set(found) == {name for name in TENSORS if ".mlp." not in name}
    with pytest.raises(CheckpointError, match=r"tensor 'lm_head.weight' is missing \(1 in all\)"):
        base_tensors(
            model(tmp_path, without=["lm_head.weight"], config={**CONFIG, "tie_word_embeddings": False}),
            DENSE,
            TARGETS["mixtral"],
        )
    with pytest.raises(CheckpointError, match="has tensor 'extra' "):
        base_tensors(model(tmp_path, extra=[1.0]), DENSE, TARGETS["mixtral"])


def test_mlps(tmp_path):
    check_mlps(model(tmp_path), DENSE)
    with pytest.raises(CheckpointError, match="holds int64, which is no float type"):
        check_mlps(model(tmp_path, **{f"{PLACE}.mlp.up_proj.weight".replace(".", "__"): np.zeros((3, 2), int)}), DENSE)


def test_an_expert_that_computes_otherwise(tmp_path):
    base = model(tmp_path)
    assert check_expert(base, model(tmp_path, "same"), DENSE) == []
    [warning] = check_expert(base, model(tmp_path, "eps", config={**CONFIG, "rope_theta": 5.0}), DENSE)
    assert "rope_theta 5.0 against 10000.0, the base's, in the mixture" in warning


def test_vocabularies(tmp_path):
    base, same = model(tmp_path), model(tmp_path, "same")
    more = model(tmp_path, "more", model__embed_tokens__weight=np.zeros((5, 2)), config={**CONFIG, "vocab_size": 5})
    assert check_vocabularies(base, [same]) == []
    with pytest.raises(CheckpointError, match="more: has 5 rows of embeddings, and the base 4"):
        check_vocabularies(base, [more])
    write_tokenizer(tmp_path / "base", ["?", "a", "b", "c"])
    write_tokenizer(tmp_path / "same", ["x", "y"])
    write_tokenizer(tmp_path / "more", ["?", "a", "b", "c", "new"])
    [warning] = check_vocabularies(base, [more])
    assert "1 tokens of" in warning and "new" in warning
    with pytest.raises(CheckpointError, match="same: has no token of the base"):
        check_vocabularies(base, [same])
