"""Editions of remote files: what was opened is what is read, or an error."""

import numpy as np
import pytest

from rlmerge.checkpoint import open_checkpoint
from rlmerge.errors import RunError
from support.models import write_model
from support.stores import times


@pytest.fixture
def opened(web, models):
    """The open model, its weights file, and where that lies on the server."""
    model = open_checkpoint(f"{web}/base")
    source = model.tensors["model.embed_tokens.weight"]
    return source, source.file, models / "org" / "base" / "model.safetensors"


def changed(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("reading", ["read", "prefetch", "copy", "fingerprint"])
def test_a_file_that_changed_is_an_error_whoever_reads(opened, reading):
    source, file, path = opened
    changed(path)
    with pytest.raises(RunError, match="has changed since it was opened") as error:
        if reading == "copy":
            file.copy(0, 8)
        elif reading == "fingerprint":
            source.fingerprint(True)
        else:
            if reading == "prefetch":
                source.prefetch()
            source.read()
    assert error.value.where == str(file)


def test_a_file_that_was_deleted(opened):
    source, _, path = opened
    path.unlink()
    with pytest.raises(RunError, match="has changed since it was opened"):
        source.read()


def test_checking_asks_the_store_when_its_last_answer_is_old(opened, faults, later):
    _, file, path = opened
    file.check()
    asked = len(faults.log)
    file.check()
    assert faults.log[asked:] == [("HEAD", f"/org/base/{path.name}", None)]
    changed(path)
    with pytest.raises(RunError, match="has changed since it was opened"):
        file.check()
    path.unlink()
    with pytest.raises(RunError, match="is no longer there"):
        file.check()


def test_checking_asks_nothing_right_after_an_answer(opened, faults):
    source, file, _ = opened
    source.read()
    asked = len(faults.log)
    file.check()
    assert len(faults.log) == asked


def test_copies_come_in_order(opened):
    _, file, path = opened
    data = path.read_bytes()
    ranges = [(at, at + 3) for at in range(0, len(data) - 3, 3)]
    assert list(file.copies(ranges)) == [data[first:last] for first, last in ranges]
    fed = []
    file.feed(ranges, lambda piece: fed.append(bytes(piece)))
    assert b"".join(fed) == b"".join(data[first:last] for first, last in ranges)
    assert file.copy(5, 5) == b"" and file.read(5, 5).size == 0


@pytest.mark.parametrize("longest", [2**20, 20])
def test_a_header_costs_two_requests_however_long_it_is(web, models, faults, monkeypatch, longest):
    """Of many shards at a time where it is short; none of it is kept."""
    write_model(models / "org" / "many", {f"model.layers.{k}.w": np.full((2, 2), k) for k in range(50)})
    monkeypatch.setattr("rlmerge.checkpoint.remote.mirror.LONGEST", longest)
    model = open_checkpoint(f"{web}/many")
    asked = [entry for entry in faults.log if entry[0] == "GET" and entry[1].endswith(".safetensors")]
    assert len(asked) == 2
    here = open_checkpoint(models / "org" / "many")
    assert {n: s.shape for n, s in model.tensors.items()} == {n: s.shape for n, s in here.tensors.items()}
    assert all(source.file.beginning is None for source in model.tensors.values())
    assert model.tensors["model.layers.7.w"].read().tolist() == here.tensors["model.layers.7.w"].read().tolist()


def test_headers_that_cannot_be_fetched_together_are_asked_for_again(web, faults):
    faults.plan = times(2, "500", "model.safetensors")
    assert open_checkpoint(f"{web}/base").tensors
