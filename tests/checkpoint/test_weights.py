import json

import pytest

from rlmerge.checkpoint.directory import INDEX, SINGLE, entries
from rlmerge.checkpoint.weights import find_weights
from rlmerge.errors import CheckpointError


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


def test_shards_without_an_index(tmp_path):
    directory(tmp_path, "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    with pytest.raises(CheckpointError, match="holds 2 safetensors files but neither"):
        found(tmp_path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["pytorch_model.bin", "config.json"], r"pickle \(pytorch_model.bin\)(?s:.*)safe_serialization=True"),
        (["pytorch_model-00001-of-00002.bin"], "pickle"),
        (["model_world_size_2_rank_0.pt", "fsdp_config.json"], "training shards(?s:.*)verl.model_merger"),
        ([".metadata", "__0_0.distcp"], "pickle"),
        (["adapter_config.json", "adapter_model.safetensors"], "LoRA adapter(?s:.*)merge_and_unload"),
        (["adapter_config.json", "adapter_model.bin"], "LoRA adapter"),
        (["model-q4.gguf"], "GGUF"),
        (["config.json", "tokenizer.json"], f"holds no weights(?s:.*){SINGLE} or {INDEX}"),
        ([], "holds no weights"),
        (["checkpoint-500/model.safetensors", "runs/log"], "Did you mean '.*/checkpoint-500'"),
    ],
)
def test_why_there_is_nothing_to_merge(tmp_path, names, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        found(directory(tmp_path, *names))
    assert caught.value.where == str(tmp_path)


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
