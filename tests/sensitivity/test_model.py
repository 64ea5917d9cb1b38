from __future__ import annotations

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from rlmerge.checkpoint.model import open_checkpoint  # noqa: E402
from rlmerge.errors import CheckpointError  # noqa: E402
from rlmerge.sensitivity.model import enable_checkpointing, layer_groups, match_parameters  # noqa: E402

from . import tiny  # noqa: E402


def stored(**shapes):
    tensors = {name: SimpleNamespace(shape=shape) for name, shape in shapes.items()}
    return SimpleNamespace(reference="model", tensors=tensors)


def shapes(model):
    return {name: tuple(p.shape) for name, p in model.named_parameters(remove_duplicate=False)}


def test_saved_models_match_name_by_name(tmp_path):
    model = tiny.llama()
    model.save_pretrained(tmp_path)
    matched, uncovered = match_parameters(model, open_checkpoint(tmp_path))
    assert list(matched.items()) == list(model.named_parameters()) and uncovered == ()


def test_both_stored_names_of_a_tied_weight_lead_to_one_parameter():
    model = tiny.llama(tied=True)
    matched, _ = match_parameters(model, stored(**shapes(model)))
    assert matched["lm_head.weight"] is matched["model.embed_tokens.weight"]


def test_a_backbones_checkpoint_lacks_the_prefix():
    model = tiny.llama(tied=True)
    names = {name.removeprefix("model."): shape for name, shape in shapes(model).items() if name != "lm_head.weight"}
    matched, _ = match_parameters(model, stored(**names))
    assert matched.keys() == names.keys()


def test_stored_constants_are_named_not_measured():
    model = tiny.llama()
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    assert match_parameters(model, stored(**shapes(model), **{name: (4,)}))[1] == (name,)


def test_tensors_and_parameters_without_partner_are_refused():
    model = tiny.llama()
    with pytest.raises(CheckpointError, match=r"tensor 'experts\.0' \(1 in all\) has no parameter"):
        match_parameters(model, stored(**shapes(model), **{"experts.0": (4,)}))
    with pytest.raises(CheckpointError, match=r"tensor 'lm_head\.weight' \(1 in all\) has no parameter"):
        match_parameters(model, stored(**{**shapes(model), "lm_head.weight": (4,)}))
    fewer = {name: shape for name, shape in shapes(model).items() if name != "lm_head.weight"}
    with pytest.raises(CheckpointError, match=r"parameter 'lm_head\.weight' \(1 in all\) is not in the checkpoint"):
        match_parameters(model, stored(**fewer))


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
