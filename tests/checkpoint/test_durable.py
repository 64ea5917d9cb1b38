import errno
import os
from pathlib import Path

import pytest
from blake3 import blake3

from rlmerge.checkpoint import durable
from rlmerge.checkpoint.durable import copy_file, sync_directory, write_file
from rlmerge.errors import RunError


def test_write_file(tmp_path):
    write_file(tmp_path / "f", b"abc")
    assert (tmp_path / "f").read_bytes() == b"abc"
    with pytest.raises(FileExistsError):
        write_file(tmp_path / "f", b"x")
    (tmp_path / "link").symlink_to("absent")
    with pytest.raises(FileExistsError):
        write_file(tmp_path / "link", b"x")


@pytest.mark.parametrize("size", [0, 1, 3, 4, 9])
def test_copy_file(tmp_path, monkeypatch, size):
    monkeypatch.setattr(durable, "_PIECE", 4)
    data = bytes(range(size))
    (tmp_path / "f").write_bytes(data)
    assert copy_file(tmp_path / "f", tmp_path / "copy") == (blake3(data).hexdigest(), size)
    assert (tmp_path / "copy").read_bytes() == data


def test_short_writes_are_completed(tmp_path, monkeypatch):
    whole = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: whole(fd, data[:2]))
    write_file(tmp_path / "f", b"abcdefg")
    copy_file(tmp_path / "f", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"abcdefg"


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_copy_that_cannot_be_written_names_the_copy(tmp_path, monkeypatch, call):
    (tmp_path / "f").write_bytes(b"abc")

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(RunError, match="copy: the disk is full"):
        copy_file(tmp_path / "f", tmp_path / "copy")


def test_all_is_on_disk(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(str(Path(f"/proc/self/fd/{fd}").readlink())) or fsync(fd))
    write_file(tmp_path / "f", b"abc")
    copy_file(tmp_path / "f", tmp_path / "copy")
    sync_directory(tmp_path)
    assert synced == [str(tmp_path / "f"), str(tmp_path / "copy"), str(tmp_path)]
