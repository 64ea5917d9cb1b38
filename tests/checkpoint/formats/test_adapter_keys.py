"""Names of an adapter's tensors: every spelling in use, one meaning each."""

import numpy as np
import pytest

from rlmerge.checkpoint import ArraySource
from rlmerge.checkpoint.formats.adapter_keys import group
from rlmerge.errors import CheckpointError
from rlmerge.kernels.dtypes import FLOAT32


def sources(*names):
    return {name: ArraySource(name, FLOAT32, np.ones(1, np.float32), "adapter") for name in names}


@pytest.mark.parametrize(
    ("name", "module", "part"),
    [
        ("base_model.model.model.layers.0.q.lora_A.weight", "model.layers.0.q", "lora_A.weight"),
        ("base_model.model.q.lora_B.default.weight", "q", "lora_B.weight"),
        ("q.lora_B.bias", "q", "lora_B.bias"),
        ("q.lora_B.policy.bias", "q", "lora_B.bias"),
        ("base_model.model.model.embed_tokens.lora_embedding_A", "model.embed_tokens", "lora_embedding_A"),
        ("embed_tokens.lora_embedding_B.default", "embed_tokens", "lora_embedding_B"),
        ("q.lora_magnitude_vector", "q", "magnitude"),
        ("q.lora_magnitude_vector.default", "q", "magnitude"),
        ("q.lora_magnitude_vector.default.weight", "q", "magnitude"),
        ("q.lora_magnitude_vector.weight", "q", "magnitude"),
        ("embed_tokens.token_adapter.trainable_tokens_delta", "embed_tokens", "rows"),
        ("embed_tokens.token_adapter.trainable_tokens_delta.default", "embed_tokens", "rows"),
        ("lm_head.modules_to_save.default.weight", "lm_head", "whole.weight"),
        ("score.modules_to_save.default.dense.weight", "score", "whole.dense.weight"),
        ("base_model.model.model.norm.weight", "model.norm", "whole.weight"),
        ("q.base_layer.bias", "q", "stored.bias"),
        ("embed_tokens.base_layer.weight", "embed_tokens", "stored.weight"),
        ("mlp.experts.base_layer.lora_A.weight", "mlp.experts.base_layer", "lora_A.weight"),
        ("_orig_mod.model._fsdp_wrapped_module.q.lora_A.weight", "model.q", "lora_A.weight"),
    ],
)
def test_meanings(name, module, part):
    [found] = group(sources(name), "adapter")
    assert (found.name, list(found.parts)) == (module, [part])
    assert found.take(part).name == name
    assert found.take(part) is None


def test_modules_come_with_all_their_parts_in_order_of_names():
    found = group(sources("b.lora_B.weight", "a.lora_A.weight", "b.lora_A.weight", "c.original_module.weight"), "x")
    assert [(module.name, sorted(module.parts)) for module in found] == [
        ("a", ["lora_A.weight"]),
        ("b", ["lora_A.weight", "lora_B.weight"]),
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["q.lora_A.one.weight", "q.lora_B.two.weight"], r"holds 2 adapters \(one, two\)"),
        (["q.lora_A.weight", "q.lora_A.default.weight"], "holds lora_A.weight of q twice"),
        (["q.lora_diag"], "has no meaning known here"),
        (["q.lora_A.weight.extra.part"], "has no meaning known here"),
        (["q.base_layer.qweight"], "has no meaning known here"),
        (["prompt_encoder.prompt_embeddings"], "has no meaning known here"),
        (["weight"], "has no meaning known here"),
        (["a" * 251], "is too long"),
    ],
)
def test_what_has_no_single_meaning_is_refused(names, message):
    with pytest.raises(CheckpointError, match=message):
        group(sources(*names), "adapter")
