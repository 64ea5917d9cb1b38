from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from rlmerge.errors import RequestError
from rlmerge.sensitivity.passes import enable_checkpointing, layer_groups
from support import tiny


def test_groups_are_whole_layers_no_larger_than_the_largest():
    model = tiny.llama(layers=3)
    parameters = dict(model.named_parameters())
    assert layer_groups(parameters, stream=False) == [list(parameters)]
    groups = layer_groups(parameters, stream=True)
    assert [name for group in groups for name in group] == list(parameters)
    for layer in range(3):
        holders = [i for i, group in enumerate(groups) if any(f"layers.{layer}." in name for name in group)]
        assert len(holders) == 1
    sizes = [sum(parameters[name].numel() for name in group) for group in groups]
    largest = sum(p.numel() for name, p in parameters.items() if "layers.0." in name)
    # Embedding and head (32 × 16 each) are smaller than a layer (about 2000 numbers), so a layer bounds every group.
    assert max(sizes) == largest and len(groups) == 5


def test_checkpointing_leaves_dropout_off():
    model = tiny.llama()
    enable_checkpointing(model)
    training = [type(module).__name__ for module in model.modules() if module.training]
    assert "LlamaDecoderLayer" in training
    assert not any("Attention" in name or "Dropout" in name for name in training)


def test_a_model_without_checkpointing_says_so():
    model = tiny.llama()
    model.supports_gradient_checkpointing = False
    with pytest.raises(RequestError, match="LlamaForCausalLM does not support gradient checkpointing"):
        enable_checkpointing(model)
