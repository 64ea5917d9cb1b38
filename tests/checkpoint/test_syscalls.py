import errno
import mmap

import numpy as np
import pytest

from rlmerge.checkpoint import syscalls


def test_exchange_swaps_two_directories(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "who").write_text(name)
    assert syscalls.exchange(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a/who").read_text() == "b"
    assert (tmp_path / "b/who").read_text() == "a"


def test_exchange_needs_both(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(FileNotFoundError):
        syscalls.exchange(tmp_path / "a", tmp_path / "b")


def test_exchange_without_the_call(tmp_path, monkeypatch):
    monkeypatch.setattr(syscalls, "_renameat2", None)
    assert not syscalls.exchange(tmp_path / "a", tmp_path / "b")


def test_madvise_reports_the_error():
    page = np.frombuffer(mmap.mmap(-1, mmap.PAGESIZE), np.uint8)
    assert syscalls.madvise(page.ctypes.data, page.size, syscalls.MADV_WILLNEED) == 0
    assert syscalls.madvise(page.ctypes.data + 1, page.size, syscalls.MADV_WILLNEED) == errno.EINVAL


def test_start_writeback_accepts_a_file(tmp_path):
    with (tmp_path / "f").open("wb") as handle:
        handle.write(bytes(8192))
        handle.flush()
        syscalls.start_writeback(handle.fileno(), 0, 8192)
    assert (tmp_path / "f").read_bytes() == bytes(8192)
