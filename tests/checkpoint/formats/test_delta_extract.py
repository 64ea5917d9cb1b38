"""Extraction: sizes, what is refused, what is left behind when it fails."""

import os

import numpy as np
import pytest
import torch

from rlmerge.checkpoint import open_checkpoint, verify
from rlmerge.checkpoint.formats.delta_extract import extract
from rlmerge.checkpoint.formats.delta_file import BLOCK, DENSE, SAME, SPARSE, smallest
from rlmerge.errors import CheckpointError, RequestError, RunError
from rlmerge.kernels.dtypes import BFLOAT16
from support import quantised
from support.models import write_model


@pytest.fixture
def pair(tmp_path):
    rng = np.random.default_rng(1)
    weights = {f"layer{i}.w": rng.standard_normal((300, 1000)) for i in range(2)}
    base = write_model(tmp_path / "base", weights, "bfloat16")
    moved = {name: x * np.where(rng.random(x.shape) < 0.1, 1.1, 1) for name, x in weights.items()}
    expert = write_model(tmp_path / "expert", moved, "bfloat16")
    (expert / "tokenizer.json").write_text("{}")
    return open_checkpoint(base), open_checkpoint(expert)


def test_the_size_is_bitmap_counts_and_values(pair, tmp_path):
    """By hand: 300 000 elements are 37 504 bytes of bitmap (a multiple of 8) and 5 counts; a value is 2 bytes."""
    base, expert = pair
    told = []
    found = extract(base, expert, tmp_path / "delta", advance=told.append)
    assert (found.tensors, found.elements, found.expert_bytes, found.dense) == (2, 600_000, 1_200_000, ())
    stored = sum(tensor.nbytes for tensor in base.tensors.values())
    assert stored == 1_200_000
    changed = sum(np.count_nonzero(base.tensors[name].read() != expert.tensors[name].read()) for name in base.tensors)
    assert found.changed == changed
    assert 0 < found.delta_bytes - (2 * (37_504 + 20) + 2 * changed) < 2000
    assert found.delta_bytes == (tmp_path / "delta" / "delta.safetensors").stat().st_size
    assert sum(told) == 2 * found.expert_bytes


def test_the_directory_is_complete_and_verifies(pair, tmp_path):
    extract(*pair, tmp_path / "delta")
    names = sorted(path.name for path in (tmp_path / "delta").iterdir())
    assert names == ["MANIFEST.json", "config.json", "delta.safetensors", "tokenizer.json"]
    assert verify(tmp_path / "delta").ok


def test_the_same_delta_has_the_same_bytes(pair, tmp_path):
    for name in ("one", "two"):
        extract(*pair, tmp_path / name)
    one, two = ((tmp_path / name / "delta.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two


@pytest.mark.parametrize(("changed", "kind"), [(0, SAME), (1, SPARSE), (61_000, SPARSE), (BLOCK, DENSE)])
def test_the_smallest_kind(changed, kind):
    """Of 65536 two-byte elements: 8192 + 4 + 2·changed bytes against 131072, equal at 61438."""
    assert smallest(BFLOAT16, (BLOCK,), changed) == kind
    assert (smallest(BFLOAT16, (BLOCK,), 61_437), smallest(BFLOAT16, (BLOCK,), 61_438)) == (SPARSE, DENSE)


def test_an_existing_directory_needs_force(pair, tmp_path):
    extract(*pair, tmp_path / "delta")
    with pytest.raises(RequestError, match="the output directory exists"):
        extract(*pair, tmp_path / "delta")
    extract(*pair, tmp_path / "delta", force=True)
    assert not list(tmp_path.glob(".*"))


def test_computed_values_are_refused(pair, tmp_path):
    codes, scales = quantised.fp8(1, (4, 4))
    model = quantised.write(tmp_path / "fp8", {"w": codes, "w_scale_inv": scales, "n": torch.ones(2)})
    with pytest.raises(CheckpointError, match="holds FP8 weights, of which values are computed"):
        extract(pair[0], open_checkpoint(model), tmp_path / "delta")
    assert not (tmp_path / "delta").exists()


def test_an_input_that_changes_while_it_is_read(pair, tmp_path):
    base, expert = pair
    file = expert.path / "model.safetensors"
    later = file.stat().st_mtime + 10
    with pytest.raises(RunError, match="has changed since it was opened"):
        extract(base, expert, tmp_path / "delta", advance=lambda _: os.utime(file, (later, later)))
    assert not (tmp_path / "delta").exists()


def test_an_interrupted_run_goes_on(pair, tmp_path):
    base, expert = pair
    extract(base, expert, tmp_path / "whole")
    told = []

    def stop(amount):
        told.append(amount)
        if len(told) == 3:  # both tensors are compared, the first is written
            raise RunError("the disk is full")

    with pytest.raises(RunError):
        extract(base, expert, tmp_path / "delta", advance=stop)
    assert [path.name for path in tmp_path.glob(".*")] == [".delta.partial"]
    extract(base, expert, tmp_path / "delta", resume=True)
    file = "delta.safetensors"
    assert (tmp_path / "delta" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
