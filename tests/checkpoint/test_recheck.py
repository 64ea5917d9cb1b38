import os

import pytest
from blake3 import blake3

from rlmerge.checkpoint.journal import Journal
from rlmerge.checkpoint.layout import OutputTensor, ShardPlan
from rlmerge.checkpoint.recheck import recheck
from rlmerge.checkpoint.shard_writer import ShardWriter
from rlmerge.errors import CheckpointError
from rlmerge.kernels.dtypes import BY_NAME


@pytest.fixture
def shard(tmp_path):
    """(path, claims) of a file of tensors a, b, c with 4, 8, 4 bytes, all written and journaled."""
    tensors = tuple(OutputTensor(name, BY_NAME["float32"], (size,)) for name, size in (("a", 1), ("b", 2), ("c", 1)))
    journal = Journal(tmp_path, "plan")
    writer = ShardWriter(tmp_path / "f", ShardPlan("f", tensors), journal)
    for tensor in tensors:
        writer.write(tensor.name, memoryview(tensor.name.encode() * tensor.nbytes))
        writer.finish_tensor(tensor.name, {})
    writer.close()
    journal.close()
    return tmp_path / "f", journal.entries


def test_all_is_kept(shard):
    path, claims = shard
    read = []
    kept = recheck(path, claims, read.append)
    assert kept.names == ("a", "b", "c")
    assert kept.header + b"aaaabbbbbbbbcccc" == path.read_bytes()
    assert kept.digest.hexdigest() == blake3(path.read_bytes()).hexdigest()
    assert read == [4, 8, 4]


def test_kept_up_to_the_first_tensor_that_is_not_claimed(shard):
    path, claims = shard
    kept = recheck(path, {name: claims[name] for name in "ac"}, lambda _: None)
    assert kept.names == ("a",)
    assert kept.digest.hexdigest() == blake3(kept.header + b"aaaa").hexdigest()


def test_kept_up_to_the_first_altered_byte(shard):
    path, claims = shard
    octets = path.read_bytes()
    path.write_bytes(octets[:-5] + b"X" + octets[-4:])
    kept = recheck(path, claims, lambda _: None)
    assert kept.names == ("a",)
    assert kept.digest.hexdigest() == blake3(kept.header + b"aaaa").hexdigest()


def test_nothing_is_kept_of_a_broken_file(shard):
    path, claims = shard
    octets = path.read_bytes()
    for content in (b"", octets[:20], octets[:-1], bytes(len(octets))):
        path.write_bytes(content)
        assert recheck(path, claims, lambda _: None) is None
    path.unlink()
    assert recheck(path, claims, lambda _: None) is None


def test_a_failing_disk_is_an_error(shard, monkeypatch):
    path, claims = shard

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(CheckpointError, match="Input/output error"):
        recheck(path, claims, lambda _: None)
