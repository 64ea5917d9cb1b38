import json

import numpy as np
import pytest

from rlmerge.checkpoint import ArraySource, open_checkpoint
from rlmerge.checkpoint.directory import INDEX, SINGLE, entries
from rlmerge.checkpoint.weights import check_weights, find_weights
from rlmerge.errors import CheckpointError
from rlmerge.kernels.dtypes import BFLOAT16, BY_NAME


def directory(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def index(root, weight_map, **more):
    (root / INDEX).write_text(json.dumps({"weight_map": weight_map, **more}))
    return root


def found(root):
    return find_weights(root, entries(root))


def test_a_single_file(tmp_path):
    assert found(directory(tmp_path, SINGLE, "consolidated.safetensors")) == ({SINGLE: []}, [])


def test_a_single_file_counts_more_than_an_index(tmp_path):
    shards, warnings = found(index(directory(tmp_path, SINGLE), {"a": "b.safetensors"}))
    assert shards == {SINGLE: []}
    assert "the index is ignored" in warnings[0]


def test_an_index(tmp_path):
    directory(tmp_path, "one.safetensors", "two.safetensors", "other.safetensors")
    index(tmp_path, {"x": "one.safetensors", "y": "two.safetensors", "z": "one.safetensors"})
    assert found(tmp_path) == ({"one.safetensors": ["x", "z"], "two.safetensors": ["y"]}, [])


def test_one_file_of_another_name(tmp_path):
    assert found(directory(tmp_path, "weights.safetensors", "adapter_model.safetensors"))[0] == {
        "weights.safetensors": []
    }


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        (["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"], "Restore the index"),
        (["model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors"], "Shard 2 is missing too"),
        (["model.bf16.safetensors", "model.fp16.safetensors"], f"Keep the one that is meant and name it {SINGLE}"),
    ],
)
def test_several_files_without_an_index(tmp_path, names, hint):
    with pytest.raises(CheckpointError, match=f"holds 2 safetensors files but neither(?s:.*){hint}"):
        found(directory(tmp_path, *names))


def test_files_that_macos_leaves(tmp_path):
    assert found(directory(tmp_path, SINGLE, "._model.safetensors", "._model-00001-of-00002.safetensors"))[1] == []
    assert entries(tmp_path) == [SINGLE]


def test_nothing_to_merge(tmp_path):
    with pytest.raises(CheckpointError, match=f"{tmp_path}: holds no weights"):
        found(directory(tmp_path, "config.json"))


@pytest.mark.parametrize(
    "name", ["../up.safetensors", "/tmp/abs.safetensors", "a/b.safetensors", "C:\\x", "\\\\host\\x", "a\0", "..", ""]
)
def test_an_index_that_points_outside_the_directory(tmp_path, name):
    with pytest.raises(CheckpointError, match=f"{INDEX}: .* is not a plain file name"):
        found(index(tmp_path, {"x": name}))


def test_an_index_of_pickles(tmp_path):
    with pytest.raises(CheckpointError, match="pickle"):
        found(index(tmp_path, {"x": "pytorch_model-00001-of-00001.bin"}))


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"weight_map": {}}', '{"weight_map": {"x": 1}}', '{"weight_map": []}']
)
def test_an_index_without_a_proper_weight_map(tmp_path, content):
    (tmp_path / INDEX).write_text(content)
    with pytest.raises(CheckpointError, match="weight_map must map"):
        found(tmp_path)


def test_an_index_that_names_a_tensor_twice(tmp_path):
    (tmp_path / INDEX).write_text('{"weight_map": {"x": "a.safetensors", "x": "b.safetensors"}}')
    with pytest.raises(CheckpointError, match="the key 'x' appears twice"):
        found(tmp_path)


def test_an_index_that_is_a_link_to_elsewhere(tmp_path):
    root = tmp_path / "model"
    root.mkdir()
    (tmp_path / "elsewhere.json").write_text('{"weight_map": {"x": "a.safetensors"}}')
    (root / INDEX).symlink_to("../elsewhere.json")
    with pytest.raises(CheckpointError, match="outside the model directory"):
        found(root)


def test_an_index_of_a_delta(tmp_path):
    with pytest.raises(CheckpointError, match=r"sparse weight delta \(delta_encoding: 'xor'\)"):
        found(index(tmp_path, {"x": "a.safetensors"}, metadata={"delta_encoding": "xor"}))


def test_entries_of_a_directory_that_may_not_be_listed(common_folder, ordinary_user):
    (common_folder / "model").mkdir(mode=0o700)
    with ordinary_user(), pytest.raises(CheckpointError, match="permission denied"):
        entries(common_folder / "model")


def tensors(shapes, dtype=BFLOAT16):
    return {name: ArraySource(name, dtype, np.zeros(shape, dtype.storage), "model") for name, shape in shapes.items()}


def test_weights_of_a_model(tmp_path):
    """Tensors without elements can be part of one, and so can vectors."""
    shapes = {"model.embed_tokens.weight": (8, 4), "model.norm.weight": (4,), "none": (0,), "t.weight": (0, 4)}
    check_weights(tensors(shapes), tmp_path)
    check_weights(tensors({"model.norm.weight": (4,), "scale": (3,)}), tmp_path)


@pytest.mark.parametrize("key", ["a.lora_A.weight", "a.lora_B.default.weight", "a.lora_embedding_A", "lora_A"])
def test_an_adapter_under_any_file_name(tmp_path, key, write_raw):
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    for name in ("other.safetensors", SINGLE):
        write_raw(tmp_path / name, {key: entry}, bytes(4))
        with pytest.raises(CheckpointError, match=f"holds a LoRA adapter \\('{key}'\\), not a model"):
            open_checkpoint(tmp_path)


def test_stubs_of_zero_3(tmp_path):
    stubs = {"model.embed_tokens.weight": (0,), "model.norm.weight": (4,), "lm_head.weight": (0,)}
    message = "under ZeRO-3 without its weights: 2 tensors are empty, such as 'model.embed_tokens.weight'"
    with pytest.raises(CheckpointError, match=message):
        check_weights(tensors(stubs), tmp_path)


def test_flattened_parameters_of_fsdp(tmp_path):
    flat = {"model.embed_tokens.weight": (32,), "model.norm.weight": (4,), "lm_head.weight": (32,)}
    with pytest.raises(CheckpointError, match=r"flattened parameters: 'model\.embed_tokens\.weight' has one dimension"):
        check_weights(tensors(flat), tmp_path)
    with pytest.raises(CheckpointError, match=r"flattened parameters: 'model\._flat_param'"):
        check_weights(tensors({"model._flat_param": (32,)}), tmp_path)
    # Packed weights can have one dimension.
    check_weights(tensors({"model.q_proj.weight": (32,)}, BY_NAME["uint8"]), tmp_path)
