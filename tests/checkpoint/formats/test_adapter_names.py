"""Names of modules in memory against names of tensors on disk."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from rlmerge.checkpoint import ArraySource
from rlmerge.checkpoint.formats.adapter_names import BaseNames, is_embedding, unwrapped
from rlmerge.errors import CheckpointError
from rlmerge.kernels.dtypes import FLOAT32


def names(**shapes):
    tensors = {name: ArraySource(name, FLOAT32, np.zeros(shape, np.float32), "base") for name, shape in shapes.items()}
    return BaseNames(SimpleNamespace(tensors=tensors, path=Path("base")), "adapter")


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        ("model.layers.0.q.weight", "model.layers.0.q.weight"),
        ("model.layers.0.q.weight", "model.language_model.layers.0.q.weight"),
        ("language_model.model.layers.0.q.weight", "model.language_model.layers.0.q.weight"),
        ("h.0.attn.c_attn.weight", "transformer.h.0.attn.c_attn.weight"),
        ("visual.blocks.0.qkv.weight", "model.visual.blocks.0.qkv.weight"),
        ("vision_tower.vision_model.encoder.q.weight", "model.vision_tower.encoder.q.weight"),
        ("model.layers.0.block_sparse_moe.gate.weight", "model.layers.0.mlp.gate.weight"),
    ],
)
def test_wrappers_do_not_matter(stored, asked):
    assert names(**{stored: (2, 3), "other": (1,)}).find(asked) == stored


def test_a_tensor_of_another_name_is_not_found():
    found = names(**{"model.layers.0.q.weight": (2, 3)})
    assert found.find("model.layers.1.q.weight") is None
    assert found.find("vision_tower.layers.0.q.weight") is None


def test_an_exact_name_comes_before_an_ambiguous_one():
    found = names(**{"model.layers.0.q.weight": (2, 3), "language_model.layers.0.q.weight": (2, 3)})
    assert found.find("model.layers.0.q.weight") == "model.layers.0.q.weight"
    with pytest.raises(CheckpointError, match="could be"):
        found.find("layers.0.q.weight")


@pytest.mark.parametrize(
    ("stored", "embedding", "head"),
    [
        (["model.embed_tokens.weight"], "model.embed_tokens.weight", "lm_head.weight"),
        (["wte.weight"], "wte.weight", "lm_head.weight"),
        (["model.language_model.embed_tokens.weight"], "model.language_model.embed_tokens.weight", "lm_head.weight"),
        (
            ["language_model.model.embed_tokens.weight"],
            "language_model.model.embed_tokens.weight",
            "language_model.lm_head.weight",
        ),
        (["model.embed_tokens.weight", "lm_head.weight"], "model.embed_tokens.weight", "lm_head.weight"),
        (["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"], None, "lm_head.weight"),
    ],
)
def test_the_tied_pair(stored, embedding, head):
    found = names(**dict.fromkeys(stored, (2, 3)))
    assert (found.embedding, found.head) == (embedding, head)
    assert found.is_head("base_model.lm_head.weight")


def test_experts_in_one_tensor():
    found = names(**{"model.layers.0.mlp.experts.down_proj": (3, 4, 5)}).stack("model.layers.0.mlp.experts.down_proj")
    assert (found.experts, found.rows, found.cols, found.whole, len(found.slabs)) == (3, 4, 5, True, 1)


@pytest.mark.parametrize("gate, up, down", [("gate_proj", "up_proj", "down_proj"), ("w1", "w3", "w2")])
def test_experts_one_by_one(gate, up, down):
    shapes = {}
    for expert in range(2):
        shapes |= {f"mlp.experts.{expert}.{gate}.weight": (4, 6), f"mlp.experts.{expert}.{up}.weight": (4, 6)}
        shapes |= {f"mlp.experts.{expert}.{down}.weight": (6, 4)}
    both = names(**shapes).stack("model.mlp.experts.gate_up_proj")
    assert (both.experts, both.rows, both.cols, both.whole) == (2, 8, 6, False)
    assert [(slab.tensor.name, slab.expert, slab.first, slab.rows) for slab in both.slabs] == [
        (f"mlp.experts.0.{gate}.weight", 0, 0, 4),
        (f"mlp.experts.0.{up}.weight", 0, 4, 4),
        (f"mlp.experts.1.{gate}.weight", 1, 0, 4),
        (f"mlp.experts.1.{up}.weight", 1, 4, 4),
    ]
    assert names(**shapes).stack("model.mlp.experts.down_proj").rows == 6


def test_experts_that_do_not_form_a_stack():
    assert names(**{"mlp.experts.0.gate_proj.weight": (4, 6)}).stack("mlp.experts.gate_up_proj") is None
    uneven = {f"mlp.experts.{e}.down_proj.weight": (6, 4 + e) for e in range(2)}
    assert names(**uneven).stack("mlp.experts.down_proj") is None
    assert names(**{"mlp.experts.down_proj": (4, 6)}).stack("mlp.experts.down_proj") is None


def test_the_nearest_name_is_that_of_another_layer_before_that_of_another_module():
    stored = {f"model.layers.{layer}.{end}.weight": (2, 3) for layer in range(3) for end in ("q_proj", "k_proj")}
    hint = names(**stored).unknown("model.layers.7.q_proj.weight", "key").hint
    assert "'model.layers." in hint and "q_proj" in hint


@pytest.mark.parametrize(
    ("name", "expected"),
    [("model.embed_tokens.weight", True), ("transformer.wpe.weight", True), ("model.layers.0.q_proj.weight", False)],
)
def test_embeddings_are_known_by_name(name, expected):
    assert is_embedding(name) is expected


def test_unwrapped():
    assert unwrapped("model.language_model.layers.0.q") == "layers.0.q"
    assert unwrapped("lm_head") == "lm_head"
    assert unwrapped("model") == "model"
