import json

import pytest

from rlmerge.checkpoint import open_checkpoint
from rlmerge.errors import CheckpointError
from rlmerge.kernels.dtypes import BFLOAT16


def shard(process, part=1, parts=1):
    return f"shard-{process:05d}-model-{part:05d}-of-{parts:05d}.safetensors"


@pytest.fixture
def write(tmp_path, write_raw):
    """Write {file: {tensor: (offsets, shape)}} of zeros in bfloat16."""

    def write(files):
        for file, tensors in files.items():
            header, size = {}, 0
            for name, (_, shape) in tensors.items():
                length = 2
                for n in shape:
                    length *= n
                header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [size, size + length]}
                size += length
            info = {name: {"saved_offsets": at} for name, (at, _) in tensors.items()}
            write_raw(tmp_path / file, {"__metadata__": {"DCP_SHARDING_INFO": json.dumps(info)}, **header}, bytes(size))
        return tmp_path

    return write


def model(rows=8, width=4, inner=6, first=0, of=1):
    """A model of which process ``first`` of ``of`` holds its part of the rows."""
    cut = {
        "model.embed_tokens.weight": [rows, width],
        "model.layers.0.mlp.gate_proj.weight": [inner, width],
        "model.layers.0.mlp.down_proj.weight": [width, inner],
        "model.norm.weight": [width],
    }
    return {name: ([first * n // of, *[0] * len(rest)], [n // of, *rest]) for name, (n, *rest) in cut.items()}


def test_the_model(holds, fixtures):
    found = holds(fixtures / "dcp-safetensors")
    assert found.format == "a DCP checkpoint in safetensors files"
    assert found.tensors["model.norm.weight"].dtype is BFLOAT16


def test_a_checkpoint_of_nemo(holds, copied):
    """step/policy/weights/model, with what Automodel keeps of the original beside it."""
    root = copied("dcp-safetensors", "step_3/policy/weights/model")
    (root / ".hf_metadata").mkdir()
    (root / ".hf_metadata/config.json").write_text('{"model_type": "tiny", "vocab_size": 10}')
    for folder in (root, root.parent, root.parents[1], root.parents[2]):
        assert holds(folder).config == {"model_type": "tiny", "vocab_size": 10}


@pytest.mark.parametrize("process", range(1, 5))
def test_the_shards_of_a_process_are_missing(copied, process):
    root = copied("dcp-safetensors")
    (root / shard(process)).unlink()
    with pytest.raises(CheckpointError, match=r"lacks the shards of (process|some processes)") as caught:
        open_checkpoint(root)
    assert "copy those of all processes" in caught.value.hint


@pytest.mark.parametrize("process", range(1, 5))
def test_a_shard_alone_is_no_model(copied, process):
    root = copied("dcp-safetensors")
    for other in {1, 2, 3, 4} - {process}:
        (root / shard(other)).unlink()
    with pytest.raises(CheckpointError, match="lacks the shards of"):
        open_checkpoint(root)


def test_one_process_can_hold_all(write):
    assert len(open_checkpoint(write({shard(1): model()})).tensors) == 4


def test_parts_of_one_process(write):
    whole = model()
    names = list(whole)
    files = {
        shard(1, 1, 2): {name: whole[name] for name in names[:2]},
        shard(1, 2, 2): {name: whole[name] for name in names[2:]},
    }
    assert len(open_checkpoint(write(files)).tensors) == 4


@pytest.mark.parametrize(
    ("files", "config", "message"),
    [
        ({shard(1): model(of=2)}, None, r"model.norm.weight is \[2\], model.embed_tokens.weight \[4, 4\]"),
        ({shard(1): model(rows=7)}, {"vocab_size": 8}, "has 7 rows, the vocabulary 8 tokens"),
        ({shard(1): model(rows=7)}, {"text_config": {"vocab_size": 8}}, "has 7 rows, the vocabulary 8 tokens"),
        (
            {shard(1): {**model(), "model.layers.0.mlp.gate_proj.weight": ([0, 0], [4, 4])}},
            None,
            r"gate_proj.weight is \[4, 4\], model.layers.0.mlp.down_proj.weight \[4, 6\]",
        ),
        ({shard(1): {"w": ([0, 0], [4, 4])}}, None, "do not show whether those of all processes are there"),
        ({shard(2): model(first=1, of=2)}, None, "lacks the shards of process 1"),
        ({shard(1): model(), shard(10**9): model()}, None, "lacks the shards of process 2"),
        ({shard(1): model(of=2), shard(2, 1, 2): model(first=1, of=2)}, None, "holds shards of 1 and of 2 files"),
        ({shard(1): {"w": ([2], [2])}}, None, "only 2 of its 4 elements are there"),
        ({shard(1): {"w": ([0], [4])}, shard(2): {"w": ([2], [4])}}, None, "its parts overlap"),
        ({shard(1): {"w": ([0], [4])}, shard(2): {"w": ([0, 0], [4, 1])}}, None, "another number of dimensions"),
        ({shard(1): {"w": ([0, 0], [4])}}, None, "does not say where it begins"),
        ({shard(1): {"w": ([-1], [4])}}, None, "does not say where it begins"),
        ({shard(1): {"w": ("0", [4])}}, None, "does not say where it begins"),
    ],
)
def test_what_is_no_whole_model(write, files, config, message):
    root = write(files)
    if config:
        (root / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(root)


def test_a_shard_that_does_not_say_what_it_is(tmp_path, write_tensors, write_raw):
    write_tensors(tmp_path / shard(1), {"model.norm.weight": [1]})
    with pytest.raises(CheckpointError, match="has the name of a shard, but no DCP_SHARDING_INFO"):
        open_checkpoint(tmp_path)
    for told in ("{", "[]", '{"w": 1}'):
        entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
        write_raw(tmp_path / shard(1), {"__metadata__": {"DCP_SHARDING_INFO": told}, "w": entry}, bytes(4))
        with pytest.raises(CheckpointError, match="DCP_SHARDING_INFO"):
            open_checkpoint(tmp_path)
