import json

import pytest
import safetensors
from hypothesis import given
from hypothesis import strategies as st

from rlmerge.checkpoint.header import read_header
from rlmerge.checkpoint.layout import OutputTensor, ShardPlan, index_json, plan_shards
from rlmerge.errors import RequestError
from rlmerge.kernels.dtypes import ALL, BY_NAME


def tensor(name, dtype="bfloat16", shape=(4,)):
    return OutputTensor(name, BY_NAME[dtype], shape)


def names(shards):
    return [[item.name for item in shard.tensors] for shard in shards]


def test_sizes():
    assert (tensor("w", shape=(3, 5)).numel, tensor("w", shape=(3, 5)).nbytes) == (15, 30)
    assert tensor("s", "float64", ()).nbytes == 8
    assert tensor("e", shape=(0, 7)).nbytes == 0


def test_everything_fits_in_one_file():
    [shard] = plan_shards([tensor("b"), tensor("a")], 16)
    assert shard.name == "model.safetensors"
    assert [item.name for item in shard.tensors] == ["b", "a"], "the given order"


def test_shards_are_filled_in_order():
    shards = plan_shards([tensor(name) for name in "abcde"], 16)
    assert names(shards) == [["a", "b"], ["c", "d"], ["e"]]
    assert [shard.name for shard in shards] == [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]


def test_a_tensor_larger_than_a_shard_is_alone():
    assert names(plan_shards([tensor("a"), tensor("big", shape=(100,)), tensor("b")], 16)) == [["a"], ["big"], ["b"]]


def test_wider_types_come_first():
    mixed = [tensor("a", "bfloat16", (3,)), tensor("b", "int8", (3,)), tensor("c", "float64"), tensor("d", "float32")]
    assert names(plan_shards([*mixed, tensor("e", "float64")], 1000)) == [["c", "e", "d", "a", "b"]]


@given(st.lists(st.tuples(st.sampled_from(ALL), st.integers(0, 40)), max_size=20), st.integers(1, 100))
def test_every_tensor_once_within_the_size_and_aligned(items, size):
    tensors = [OutputTensor(f"t{index}", dtype, (count,)) for index, (dtype, count) in enumerate(items)]
    shards = plan_shards(tensors, size)
    assert sorted(name for shard in names(shards) for name in shard) == sorted(item.name for item in tensors)
    for shard in shards:
        assert len(shard.tensors) == 1 or sum(item.nbytes for item in shard.tensors) <= size
        offset = len(shard.header)
        assert offset % 8 == 0
        for item in shard.tensors:
            assert offset % item.dtype.itemsize == 0
            offset += item.nbytes
        assert offset == shard.size


@pytest.mark.parametrize("size", [0, -5])
def test_a_shard_size_that_holds_nothing(size):
    with pytest.raises(RequestError, match="shard size must be positive"):
        plan_shards([tensor("a")], size)


def test_names_must_differ():
    with pytest.raises(ValueError, match="distinct"):
        plan_shards([tensor("a"), tensor("a")], 100)


def test_header_byte_for_byte():
    shard = ShardPlan("f", (tensor("w", "float32", (2, 1)), tensor("é", "bfloat16", ())))
    text = (
        '{"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},'
        '"é":{"dtype":"BF16","shape":[],"data_offsets":[8,10]}}'
    ).encode()
    padded = text + b" " * (-len(text) % 8)
    assert shard.header == len(padded).to_bytes(8, "little") + padded
    assert shard.size == len(shard.header) + 10


def test_header_as_the_safetensors_library_and_our_reader_see_it(tmp_path):
    tensors = tuple(OutputTensor(dtype.name, dtype, (2, 3)) for dtype in sorted(ALL, key=lambda item: -item.itemsize))
    tensors += (OutputTensor("scalar", BY_NAME["uint8"], ()), OutputTensor("empty", BY_NAME["int8"], (0, 2)))
    shard = ShardPlan("f", tensors)
    octets = shard.header + bytes(shard.size - len(shard.header))
    theirs = dict(safetensors.deserialize(octets))
    (tmp_path / "f").write_bytes(octets)
    ours = read_header(tmp_path / "f")
    assert ours.metadata == {"format": "pt"}
    for item in tensors:
        assert (theirs[item.name]["dtype"], theirs[item.name]["shape"]) == (item.dtype.code, list(item.shape))
        assert (ours.tensors[item.name].dtype, ours.tensors[item.name].shape) == (item.dtype, item.shape)


def test_index():
    shards = plan_shards([tensor("z"), tensor("a", "float32", (2, 2)), tensor("m", shape=(2,))], 16)
    content = index_json(shards)
    assert json.loads(content) == {
        "metadata": {"total_parameters": 10, "total_size": 28},
        "weight_map": {
            "a": "model-00002-of-00003.safetensors",
            "m": "model-00003-of-00003.safetensors",
            "z": "model-00001-of-00003.safetensors",
        },
    }
    assert list(json.loads(content)["weight_map"]) == ["a", "m", "z"]
    assert content.endswith(b"}\n")


def test_a_group_stays_together_in_its_own_order_after_single_tensors():
    codes, scales = tensor("w", "float8_e4m3fn", (8,)), tensor("w_scale", "float32", (2,))
    [shard] = plan_shards([(codes, scales), tensor("b"), tensor("i", "int8", (4,))], 1000)
    assert [item.name for item in shard.tensors] == ["b", "i", "w", "w_scale"]
    assert names(plan_shards([tensor("b"), (codes, scales), tensor("c")], 20)) == [["b"], ["w", "w_scale"], ["c"]]
    with pytest.raises(ValueError, match="distinct"):
        plan_shards([(codes, scales), tensor("w")], 1000)
