"""Applying and checking deltas: the expert's file bit for bit, and an error wherever a checksum differs."""

import numpy as np
import pytest

from rlmerge.checkpoint import open_checkpoint, verify
from rlmerge.checkpoint.formats.delta_apply import apply, check
from rlmerge.checkpoint.formats.delta_extract import extract
from rlmerge.errors import CheckpointError, RequestError, RunError
from support.models import read_model, write_model


@pytest.fixture
def pair(tmp_path):
    rng = np.random.default_rng(1)
    weights = {"a.w": rng.standard_normal((300, 100)), "b.w": rng.standard_normal(70), "n.w": np.ones(5)}
    base = write_model(tmp_path / "base", weights, "bfloat16")
    moved = {name: x * np.where(rng.random(x.shape) < 0.1, -1, 1) for name, x in weights.items()} | {"n.w": np.ones(5)}
    moved["a.w"][0, :3] = -0.0, np.nan, np.inf
    expert = write_model(tmp_path / "expert", moved, "bfloat16")
    base, expert = open_checkpoint(base), open_checkpoint(expert)
    extract(base, expert, tmp_path / "delta")
    return tmp_path, base, expert


def test_the_expert_comes_back(pair):
    root, base, expert = pair
    told = []
    manifest = apply(open_checkpoint(root / "delta", base=base), root / "out", advance=told.append)
    for name, array in read_model(root / "expert").items():
        assert read_model(root / "out")[name].tobytes() == array.tobytes()
    assert (root / "out" / "config.json").read_bytes() == (root / "expert" / "config.json").read_bytes()
    assert open_checkpoint(root / "out").fingerprint() == expert.fingerprint()
    assert verify(root / "out").ok
    assert sum(told) == expert.nbytes
    assert len(manifest.tensors) == 3


def test_in_several_shards(pair):
    root, base, expert = pair
    apply(open_checkpoint(root / "delta", base=base), root / "out", shard_size=1000)
    assert len(list((root / "out").glob("*.safetensors"))) == 2
    assert open_checkpoint(root / "out").fingerprint() == expert.fingerprint()


def test_a_sound_delta_has_no_problem(pair):
    root, base, expert = pair
    told = []
    found = check(open_checkpoint(root / "delta", base=base), base, advance=told.append)
    assert (found.ok, found.problems, found.tensors, found.bytes) == (True, (), 3, expert.nbytes)
    assert sum(told) == expert.nbytes


def edit(file, position):
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)


def test_a_value_of_the_delta_that_was_altered(pair):
    """The last bytes of the file are values of a tensor."""
    root, base, _ = pair
    edit(root / "delta" / "delta.safetensors", -1)
    model = open_checkpoint(root / "delta", base=base)
    found = check(model, base)
    assert len(found.problems) == 1
    assert "does not have the checksum that the delta states" in found.problems[0]
    with pytest.raises(CheckpointError, match="does not have the checksum"):
        apply(model, root / "out")
    assert not (root / "out").exists()
    assert not list(root.glob(".*"))


def test_a_base_that_differs_where_its_fingerprint_does_not_look(pair, monkeypatch):
    """The fingerprint of a large model samples it; the checksums of the delta cover every byte."""
    root, base, _ = pair
    edit(root / "base" / "model.safetensors", -1)
    other = open_checkpoint(root / "base")
    known = base.fingerprint()
    monkeypatch.setattr(type(other), "fingerprint", lambda self: known)
    model = open_checkpoint(root / "delta", base=other)
    found = check(model, other)
    assert not found.ok
    assert any("is not the tensor that was changed" in problem for problem in found.problems)
    with pytest.raises(CheckpointError, match="does not have the checksum"):
        apply(model, root / "out")


def test_a_bitmap_that_was_altered_is_a_problem(pair):
    root, base, _ = pair
    file = root / "delta" / "delta.safetensors"
    start = 8 + int.from_bytes(file.read_bytes()[:8], "little")
    edit(file, start)
    found = check(open_checkpoint(root / "delta", base=base), base)
    assert any("of the bitmap does not have" in problem for problem in found.problems)


def test_an_interrupted_run_goes_on(pair, monkeypatch):
    root, base, expert = pair
    model = open_checkpoint(root / "delta", base=base)

    def fail(*_):
        raise RunError("the disk is full")

    assert model.edition  # its fingerprint is read once
    monkeypatch.setattr(model.tensors["b.w"], "read", fail)
    with pytest.raises(RunError):
        apply(model, root / "out")
    monkeypatch.undo()
    with pytest.raises(RequestError, match="an interrupted run left"):
        apply(model, root / "out")
    apply(model, root / "out", resume=True)
    assert open_checkpoint(root / "out").fingerprint() == expert.fingerprint()


def test_an_existing_directory_needs_force(pair):
    root, base, _ = pair
    with pytest.raises(RequestError, match="the output directory exists"):
        apply(open_checkpoint(root / "delta", base=base), root / "expert")
