import pytest

from rlmerge.checkpoint.directory import entries, first_missing
from rlmerge.errors import CheckpointError


def test_names_are_sorted(tmp_path):
    for name in ("b", "a", ".c", "._a", "._"):
        (tmp_path / name).write_bytes(b"")
    assert entries(tmp_path) == [".c", "a", "b"]
    with pytest.raises(CheckpointError, match="does not exist"):
        entries(tmp_path / "x")


def test_the_first_number_that_is_missing():
    assert first_missing({0, 1, 3}, 0, 3) == 2
    assert first_missing({0, 1}, 0, 1) is None
    assert first_missing({1, 2}, 0, 2) == 0
    assert first_missing(set(), 0, -1) is None
    assert first_missing({0, 1}, 0, 10**40) == 2
