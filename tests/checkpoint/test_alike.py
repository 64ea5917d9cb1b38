"""What models opened together share, and what each of them must still show by itself."""

import itertools
import json
import shutil

import numpy as np
import pytest
import torch

from rlmerge.checkpoint import open_checkpoint
from rlmerge.checkpoint.alike import known_of, once, opened_together
from rlmerge.checkpoint.formats.quantised_source import LikeBlocks, ScaledBlocks
from rlmerge.checkpoint.header import LaidOut, read_header
from rlmerge.errors import CheckpointError
from support import quantised

FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}


def counted():
    """A function that says how often it was called."""
    calls = itertools.count(1)
    return lambda: next(calls)


def test_the_same_bytes_are_looked_at_once_and_forgotten_afterwards():
    find = counted()
    with opened_together():
        assert [once("header", data, find) for data in (b"a", b"a", b"b", b"a")] == [1, 1, 2, 1]
        assert once("index", b"a", find) == 3
    assert known_of("header", b"a") is None
    with opened_together():
        assert once("header", b"a", find) == 4


def test_alone_nothing_is_kept():
    find = counted()
    assert [once("header", b"a", find), once("header", b"a", find)] == [1, 2]


def test_a_failure_is_not_kept():
    def fail():
        raise CheckpointError("wrong")

    with opened_together():
        with pytest.raises(CheckpointError):
            once("header", b"a", fail)
        assert once("header", b"a", lambda: 1) == 1


@pytest.fixture
def sharded(tmp_path, write_tensors):
    """Three models of two shards, with the same index and headers and other values."""
    for k in range(3):
        folder = tmp_path / f"m{k}"
        folder.mkdir()
        write_tensors(folder / "model-1.safetensors", {"a.weight": [k, 1.0]})
        write_tensors(folder / "model-2.safetensors", {"b.weight": [2.0, k, 3.0], "c": [4.0]})
        placed = {"a.weight": "model-1.safetensors", "b.weight": "model-2.safetensors", "c": "model-2.safetensors"}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
        (folder / "config.json").write_text("{}")
    return tmp_path


def values(checkpoint):
    return {name: source.read().tolist() for name, source in checkpoint.tensors.items()}


def test_twins_have_their_own_values(sharded):
    alone = [values(open_checkpoint(sharded / f"m{k}")) for k in range(3)]
    with opened_together():
        together = [open_checkpoint(sharded / f"m{k}") for k in range(3)]
    assert [values(x) for x in together] == alone
    assert alone[2] == {"a.weight": [2, 1], "b.weight": [2, 2, 3], "c": [4]}
    assert {str(f.path.parent) for f in together[1].tensors["c"].files} == {str(sharded / "m1")}


def test_a_damaged_twin_is_still_refused(sharded, write_tensors):
    with (sharded / "m1" / "model-2.safetensors").open("ab") as file:
        file.write(b"x")
    write_tensors(sharded / "m2" / "model-2.safetensors", {"b.weight": [2.0, 1.0, 3.0]})
    with opened_together():
        open_checkpoint(sharded / "m0")
        with pytest.raises(CheckpointError, match="after its last tensor"):
            open_checkpoint(sharded / "m1")
        with pytest.raises(CheckpointError, match="lacks tensor 'c'"):
            open_checkpoint(sharded / "m2")


def test_quantised_twins_have_their_own_codes_and_scales(tmp_path):
    for k in range(2):
        codes, scales = quantised.fp8(k, (130, 140))
        tensors = {"l.weight": codes, "l.weight_scale_inv": scales, "n.weight": torch.full((8,), k).bfloat16()}
        quantised.write(tmp_path / f"m{k}", tensors, FP8)
    alone = open_checkpoint(tmp_path / "m1")
    shutil.copytree(tmp_path / "m1", tmp_path / "other")
    (tmp_path / "other" / "config.json").write_text('{"model_type": "qwen3"}')
    with opened_together():
        _, twin, other = (open_checkpoint(tmp_path / name) for name in ("m0", "m1", "other"))
    assert list(twin.tensors) == list(alone.tensors)
    assert type(twin.tensors["l.weight"]) is LikeBlocks and type(alone.tensors["l.weight"]) is ScaledBlocks
    assert (twin.format, twin.config, twin.warnings) == (alone.format, alone.config, ())
    for name, source in alone.tensors.items():
        np.testing.assert_array_equal(twin.tensors[name].read(), source.read())
        assert twin.tensors[name].fingerprint(True) == source.fingerprint(True)
        for told in ("dtype", "nominal", "shape", "nbytes", "scratch", "is_remote", "where"):
            assert getattr(twin.tensors[name], told) == getattr(source, told), told
        assert [file.path for file in twin.tensors[name].files] == [file.path for file in source.files]
    np.testing.assert_array_equal(twin.tensors["l.weight"].read(150, 290), alone.tensors["l.weight"].read()[150:290])
    # Without a quantization_config the same files are read by their names alone, and this config is another.
    assert other.config == {"model_type": "qwen3"}


def test_a_quantised_twin_with_more_than_codes_and_scales_is_read_by_itself(tmp_path):
    for k in range(2):
        codes, scales = quantised.fp8(k, (130, 140))
        beside = torch.full((1,), 2.0 + k)
        tensors = {"l.weight": codes, "l.weight_scale_inv": scales, "l.input_scale": beside}
        quantised.write(tmp_path / f"m{k}", tensors, FP8)
    with opened_together():
        _, twin = (open_checkpoint(tmp_path / f"m{k}") for k in range(2))
    np.testing.assert_array_equal(
        twin.tensors["l.weight"].read(), open_checkpoint(tmp_path / "m1").tensors["l.weight"].read()
    )
    assert [beside.read().tolist() for beside in twin.tensors["l.weight"].beside] == [[3.0]]


def test_tensors_that_are_laid_out_as_another_models_are_made_when_they_are_asked_for(sharded):
    with opened_together():
        headers = [[read_header(sharded / f"m{k}" / f"model-{n}.safetensors") for n in (1, 2)] for k in range(2)]
        layouts = tuple(header.layout for header in headers[0])
        found = LaidOut(headers[1], layouts)
        again = LaidOut(headers[0], layouts)
    assert list(found) == ["a.weight", "b.weight", "c"] and len(found) == 3
    assert "c" in found and "d" not in found and found.get("d") is None
    assert {name: source.read().tolist() for name, source in found.items()} == {
        "a.weight": [1, 1],
        "b.weight": [2, 1, 3],
        "c": [4],
    }
    assert found["b.weight"] is found["b.weight"] and again["b.weight"].read().tolist() == [2, 0, 3]
    assert dict(found) == {**headers[1][0].tensors, **headers[1][1].tensors}
    assert not found.is_remote
