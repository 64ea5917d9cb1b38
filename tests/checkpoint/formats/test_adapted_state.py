import json

import numpy as np
import pytest

from rlmerge.checkpoint import open_checkpoint
from rlmerge.errors import CheckpointError
from support.torchfiles import Tensor, dtensor, mesh, save, shard

PREFIX = "base_model.model.model.layers.0.self_attn.q_proj"
NAME = "model.layers.0.self_attn.q_proj.weight"
RNG = np.random.default_rng(5)
OWN, A, B = (RNG.standard_normal(shape).astype("<f4") for shape in ((6, 8), (2, 8), (6, 2)))
NORM = np.arange(4, dtype="<f4")


def halves(array):
    """Cut into two by rows, as FSDP does."""
    parts = np.array_split(array, [-(-len(array) // 2)])
    return [dtensor(Tensor(part.copy()), array.shape, [shard(0)], mesh([0, 1], k)) for k, part in enumerate(parts)]


def write(root, settings, **arrays):
    for rank in range(2):
        state = {name: halves(array)[rank] for name, array in arrays.items()}
        save(root / f"model_world_size_2_rank_{rank}.pt", state)
    if settings is not None:
        (root / "lora_train_meta.json").write_text(json.dumps(settings))
    return root


def adapter(a=A):
    return {f"{PREFIX}.lora_A.default.weight": a, f"{PREFIX}.lora_B.default.weight": B}


SETTINGS = {"r": 2, "lora_alpha": 6, "task_type": "CAUSAL_LM"}
OWN_WEIGHTS = {f"{PREFIX}.base_layer.weight": OWN, "base_model.model.model.norm.weight": NORM}


def check(found):
    """6 / 2 times the product is added: float32 against float64, within rounding of the sum of three numbers."""
    expected = OWN + 3 * (B.astype(float) @ A.astype(float))
    np.testing.assert_allclose(found.read().reshape(6, 8), expected, rtol=1e-6, atol=1e-6)


def test_the_model_as_the_adapter_changes_it(tmp_path):
    model = open_checkpoint(write(tmp_path, SETTINGS, **OWN_WEIGHTS, **adapter()))
    assert set(model.tensors) == {NAME, "model.norm.weight"}
    assert model.format == "FSDP rank files"
    check(model.tensors[NAME])
    assert model.tensors["model.norm.weight"].read().tolist() == [0, 1, 2, 3]


def test_an_adapter_without_its_model(tmp_path, write_raw):
    root = write(tmp_path / "shards", SETTINGS, **adapter())
    with pytest.raises(CheckpointError, match="a LoRA adapter without the model it belongs to"):
        open_checkpoint(root)
    entry = {"dtype": "F32", "shape": [6, 8], "data_offsets": [0, 192]}
    (tmp_path / "base").mkdir()
    write_raw(tmp_path / "base/model.safetensors", {NAME: entry}, OWN.tobytes())
    check(open_checkpoint(root, base=open_checkpoint(tmp_path / "base")).tensors[NAME])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (None, "holds a LoRA adapter but no lora_train_meta.json"),
        ([], "must give r and lora_alpha as numbers"),
        ({"r": 2}, "must give r and lora_alpha as numbers"),
        ({"r": "2", "lora_alpha": 6}, "must give r and lora_alpha as numbers"),
        ({"r": 4, "lora_alpha": 6}, r"says that r is 4, but '.*lora_A.default.weight' is \[2, 8\]"),
    ],
)
def test_settings_that_do_not_fit(tmp_path, settings, message):
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(write(tmp_path, settings, **OWN_WEIGHTS, **adapter()))


def test_factors_that_do_not_fit(tmp_path):
    wrong = {**OWN_WEIGHTS, **adapter(RNG.standard_normal((2, 7)).astype("<f4"))}
    with pytest.raises(CheckpointError):
        open_checkpoint(write(tmp_path, SETTINGS, **wrong))
    lone = {name: array for name, array in adapter().items() if "lora_A" in name}
    with pytest.raises(CheckpointError, match="has no counterpart"):
        open_checkpoint(write(tmp_path, SETTINGS, **OWN_WEIGHTS, **lone))
