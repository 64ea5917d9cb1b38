import json

import numpy as np
import pytest

from rlmerge.checkpoint import open_checkpoint
from rlmerge.errors import CheckpointError
from support.torchfiles import Obj, Tensor, save


def tensor(*numbers):
    return Tensor(np.array(numbers, "<f4"))


def index(root, placed):
    (root / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    return root


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.bin", "model_final.pt"])
def test_one_file(tmp_path, name):
    save(tmp_path / name, {"a": tensor(1, 2), "b": tensor(3)})
    for other in ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state_0.pth", "model.gguf"):
        (tmp_path / other).write_bytes(b"never read")
    model = open_checkpoint(tmp_path)
    assert model.format == "pickled PyTorch weights"
    assert {key: source.read().tolist() for key, source in model.tensors.items()} == {"a": [1, 2], "b": [3]}
    assert model.tensors["a"].where == f"{tmp_path / name}: a"


def test_what_torch_saves(tmp_path):
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(3, 2, dtype=torch.bfloat16)
    torch.save(layer.state_dict(), tmp_path / "pytorch_model.bin")
    tensors = open_checkpoint(tmp_path).tensors
    np.testing.assert_array_equal(
        tensors["weight"].read(), layer.weight.detach().view(torch.uint16).numpy().reshape(-1)
    )


def test_shards(tmp_path):
    save(tmp_path / "pytorch_model-00001-of-00002.bin", {"a": tensor(1, 2)})
    save(tmp_path / "pytorch_model-00002-of-00002.bin", {"b": tensor(3)})
    placed = {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}
    assert list(open_checkpoint(index(tmp_path, placed)).tensors) == ["a", "b"]
    (tmp_path / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(CheckpointError, match="does not exist"):
        open_checkpoint(tmp_path)


def test_safetensors_come_first(tmp_path, write_tensors):
    save(tmp_path / "pytorch_model.bin", {"a": tensor(1, 2)})
    write_tensors(tmp_path / "model.safetensors", {"a": [5]})
    assert open_checkpoint(tmp_path).tensors["a"].read().tolist() == [5]


@pytest.mark.parametrize(
    ("files", "placed", "message"),
    [
        ({"pytorch_model-00001-of-00002.bin": "a"}, None, "holds shards of weights, but not pytorch_model.bin.index"),
        ({"pytorch_model-1-of-2.bin": "a", "pytorch_model-2-of-2.bin": "b"}, None, "holds shards of weights, but not"),
        ({"model.pt": "a", "model.ema.pt": "a"}, None, "2 files that can be its weights: model.ema.pt, model.pt"),
        ({"x.bin": "a"}, {"a": "x.bin", "b": "x.bin"}, r"x.bin: lacks tensor 'b'.*\(1 missing"),
        ({"x.bin": "a", "y.bin": "a"}, {"a": "x.bin", "c": "y.bin"}, "y.bin: lacks tensor 'c'"),
        ({"x.bin": "ab", "y.bin": "a"}, {"b": "x.bin", "a": "y.bin"}, "tensor 'a' is also in another shard"),
        ({}, {"a": "../x.bin"}, "is not a plain file name"),
        ({}, {}, "weight_map must map"),
        ({}, {"a": 3}, "weight_map must map"),
    ],
)
def test_what_is_no_model(tmp_path, files, placed, message):
    for name, keys in files.items():
        save(tmp_path / name, {key: tensor(1) for key in keys})
    if placed is not None:
        index(tmp_path, placed)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": 3}, "a: is no tensor of a model"),
        ({"a": None}, "holds no tensors of a model"),
        ({"a": Obj("torch.nn.parameter", "Parameter", (), {})}, "a: is no tensor of a model"),
        (tensor(1), "holds no state dict of a model"),
        ({"model.q_proj.lora_A.weight": tensor(1)}, "holds a LoRA adapter"),
        ({"model.q_proj.weight": tensor(), "model.norm.weight": tensor(1)}, "saved under ZeRO-3 without its weights"),
        ({"a": Obj("os", "system", ("touch x",), called=True)}, "names 'os.system', which no checkpoint needs"),
    ],
)
def test_what_is_no_state_dict(tmp_path, value, message):
    save(tmp_path / "pytorch_model.bin", value)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path)
