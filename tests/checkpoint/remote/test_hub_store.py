"""What only the Hub does: commits, links that expire, and content servers that must not see the token."""

import numpy as np
import pytest

from rlmerge.checkpoint import open_checkpoint
from rlmerge.checkpoint.remote.hub_store import HubStore, at_most
from rlmerge.errors import CheckpointError
from support import stores
from support.stores import times


def read(model):
    return (model.tensors["model.norm.weight"].read().astype(np.uint32) << 16).view(np.float32).tolist()


def test_a_links_end_is_followed_by_a_new_one(hub, faults, made):
    model = open_checkpoint(f"{hub}/base@main")
    made[0] += 1
    assert read(model) == [0.0, 1.0, 2.0, 3.0]
    assert [path for _, path, _ in faults.log if path.startswith("/cdn/")] == ["/cdn/1/org/base/model.safetensors"]
    assert resolved(faults) == 2, "and so the first link was refused"


def resolved(faults):
    """How often the Hub was asked where the weights are."""
    return sum(method == "HEAD" and "/resolve/" in path and "safetensors" in path for method, path, _ in faults.log)


def test_a_link_is_asked_for_once(hub, faults):
    model = open_checkpoint(f"{hub}/base")
    read(model), read(model)
    assert resolved(faults) == 1


def test_connections_that_break(hub, faults):
    model = open_checkpoint(f"{hub}/base")
    faults.plan = times(3, "hang up", "model.safetensors")
    assert read(model) == [0.0, 1.0, 2.0, 3.0]


def test_a_second_revision_of_one_address(hub):
    with pytest.raises(CheckpointError, match="no revision 'dev'"):
        open_checkpoint(f"{hub}/base", revision="dev")


@pytest.mark.parametrize("address", ["hf://org", "hf://org/name/folder", "hf://org/name/folder@main", "hf://"])
def test_an_address_names_one_repository(address):
    with pytest.raises(CheckpointError, match="is no address of a Hub repository"):
        HubStore(address, None)


def test_of_a_body_without_end_only_the_beginning_is_taken():
    def endless():
        yield b"1234"
        yield b"5678"
        raise AssertionError("asked for more than was needed")

    assert at_most(endless(), 7) == b"12345678"
    assert at_most([b"1234", b"5"], 7) == b"12345"


def test_a_server_that_sends_the_whole_file(hub, monkeypatch):
    monkeypatch.setattr(stores._Hub, "ranges", False)
    monkeypatch.setattr(
        "rlmerge.checkpoint.remote.mirror.HEAD", 16
    )  # files of models are longer than what is asked for
    with pytest.raises(CheckpointError, match="cannot be read in ranges") as error:
        open_checkpoint(f"{hub}/base")
    assert "without hf://" in error.value.hint
