"""Locks by which processes of one directory know of one another."""

import fcntl
import os

import pytest

from rlmerge.search.workers import FOLDER, Workers


def test_a_process_is_alive_until_it_leaves(tmp_path):
    one, other = Workers(tmp_path), Workers(tmp_path)
    assert one.name != other.name
    assert one.is_alive(one.name) and one.is_alive(other.name)
    assert not one.are_none_else
    other.leave()
    assert one.are_none_else
    other.leave()
    assert not one.is_alive(other.name)
    one.leave()


def test_a_lock_that_nobody_holds_is_of_a_killed_process(tmp_path):
    mine = Workers(tmp_path)
    (tmp_path / FOLDER / "killed").touch()
    assert not mine.is_alive("killed")
    assert not (tmp_path / FOLDER / "killed").exists()
    assert not mine.is_alive("")
    mine.leave()


def test_one_process_at_a_time(tmp_path):
    mine = Workers(tmp_path)
    handle = os.open(tmp_path / FOLDER / "lock", os.O_RDWR | os.O_CREAT)
    with mine.exclusive(), pytest.raises(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(handle)
    mine.leave()
