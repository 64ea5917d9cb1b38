"""A disk that fills up while the command merges onto it: a real file system of four megabytes."""

import os
import sys

import pytest

from rlmerge.checkpoint.journal import Journal
from support.disks import small_disk
from support.family import cli, draw, tree
from support.models import write_model

SHAPES = {f"model.layers.{index}.w": (400, 500) for index in range(5)}
"""Five shards of 400 kB each in bfloat16."""

FLAGS = ["merge", "--method", "ties", "-p", "density=0.5", "--base", "base", "e0", "e1", "--shard-size", "450kB"]


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk", 4) as folder:
        yield folder


@pytest.fixture
def models(tmp_path):
    base, experts = draw(6, 2, SHAPES)
    write_model(tmp_path / "base", base, "bfloat16")
    for k, expert in enumerate(experts):
        write_model(tmp_path / f"e{k}", expert, "bfloat16")
    return tmp_path


FILLS_UP = """
import sys
from rlmerge.checkpoint.shard_writer import ShardWriter
finish, left = ShardWriter.finish_tensor, [2]
def fill(self, *arguments):
    entry = finish(self, *arguments)
    left[0] -= 1
    if left[0] == 0:
        with open("disk/other", "wb") as other:
            try:
                other.write(bytes(8_000_000))
            except OSError:
                pass
    return entry
ShardWriter.finish_tensor = fill
from rlmerge.cli import main
main()
"""
"""The command on a disk that another process fills while the third of five shards is about to be written."""


def test_a_disk_that_fills_up_and_is_freed(models, disk, monkeypatch):
    monkeypatch.setattr("support.family.COMMAND", [sys.executable, "-c", FILLS_UP])
    done = cli(models, *FLAGS, "-o", "disk/out")
    monkeypatch.undo()
    assert (done.returncode, done.stdout) == (1, "")
    assert "the disk is full\n  Free some space there, then run again with --resume to continue." in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in disk.iterdir()) == [".out.partial", "other"]
    (disk / "other").unlink()
    resumed = cli(models, *FLAGS, "-o", "disk/out", "--resume", "--format", "json")
    assert resumed.returncode == 0, resumed.stderr
    assert '"resumed": 2' in resumed.stdout
    assert cli(models, *FLAGS, "-o", "elsewhere").returncode == 0
    assert tree(disk / "out") == tree(models / "elsewhere")


def test_a_disk_that_is_too_small_is_known_beforehand(models, disk):
    (disk / "other").write_bytes(os.urandom(3_000_000))
    done = cli(models, *FLAGS, "-o", "disk/out")
    assert done.returncode == 2
    assert "the merge writes 2,00" in done.stderr
    assert "are free there\n  Free some space, or write to another disk with -o." in done.stderr
    assert [path.name for path in disk.iterdir()] == ["other"]
    assert cli(models, "plan", *FLAGS[1:], "-o", "disk/out").returncode == 2


def test_resuming_needs_room_for_the_rest_alone(models, disk):
    """The shards that an interrupted run has reserved are not asked for twice."""
    process = cli(models, *FLAGS, "-o", "disk/out")
    assert process.returncode == 0
    interrupted = disk / ".out.partial"
    interrupted.mkdir()
    (disk / "out").rename(interrupted / "model")
    Journal(interrupted, "a plan").close()
    (disk / "other").write_bytes(os.urandom(1_500_000))
    done = cli(models, *FLAGS, "-o", "disk/out", "--resume")
    assert done.returncode == 0, done.stderr
