"""A full disk, on a real file system of one megabyte."""

import numpy as np
import pytest

from rlmerge.checkpoint import OutputTensor, PartialDirectory, plan_shards, verify
from rlmerge.errors import RunError
from rlmerge.kernels.dtypes import BY_NAME
from support.disks import small_disk


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk", 1) as folder:
        yield folder


SHARDS = plan_shards([OutputTensor(f"t{index}", BY_NAME["bfloat16"], (50_000,)) for index in range(6)], 250_000)


def merge(target, resume=False):
    """Write 600 kB in three shards; the number of tensors taken up from before."""
    with PartialDirectory(target, "plan", resume=resume) as partial:
        for shard in SHARDS:
            writer = partial.shard_writer(shard)
            for tensor in writer.pending:
                writer.write(tensor.name, np.full(50_000, int(tensor.name[1:]), np.uint16))
                writer.finish_tensor(tensor.name, {"index": int(tensor.name[1:])})
        partial.seal(SHARDS)
        return len(partial.completed())


def test_a_full_disk_stops_the_run_and_freeing_it_lets_it_go_on(disk, tmp_path, tree):
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(500_000))
    with pytest.raises(RunError, match="the disk is full\n  Free some space there") as caught:
        merge(disk / "out")
    assert caught.value.exit_code == 1
    assert ".out.partial" in caught.value.where
    assert not (disk / "out").exists()
    ballast.unlink()
    assert merge(disk / "out", resume=True) == 4
    merge(tmp_path / "elsewhere")
    assert tree(disk / "out") == tree(tmp_path / "elsewhere")
    assert verify(disk / "out").ok


def test_no_space_for_the_side_files(disk):
    with PartialDirectory(disk / "out", "plan") as partial:
        with pytest.raises(RunError, match="the disk is full"):
            partial.write_file("tokenizer.json", bytes(2_000_000))
        partial.abandon()
    assert list(disk.iterdir()) == []


def test_no_space_for_the_journal(disk):
    [shard] = plan_shards([OutputTensor("w", BY_NAME["bfloat16"], (50_000,))], 10**6)
    with PartialDirectory(disk / "out", "plan") as partial:
        writer = partial.shard_writer(shard)
        writer.write("w", np.zeros(50_000, np.uint16))
        with pytest.raises(RunError, match=r"journal\.jsonl: the disk is full"):
            writer.finish_tensor("w", {"long": "x" * 2_000_000})
    with PartialDirectory(disk / "out", "plan", resume=True) as partial:
        assert partial.completed() == {}, "the torn line does not count"
        writer = partial.shard_writer(shard)
        writer.write("w", np.zeros(50_000, np.uint16))
        writer.finish_tensor("w", {})
        partial.seal([shard])
    assert verify(disk / "out").ok
