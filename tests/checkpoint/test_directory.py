import pytest

from rlmerge.checkpoint.directory import entries, first_missing, has_file, has_folder
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


def test_what_may_not_be_looked_at_is_not_there(common_folder, ordinary_user):
    inner = common_folder / "closed"
    (inner / "folder").mkdir(parents=True)
    (inner / "file").write_bytes(b"")
    assert has_file(inner / "file") and has_folder(inner / "folder")
    assert not has_file(inner / "folder") and not has_folder(inner / "file") and not has_file(inner / "none")
    inner.chmod(0o600)
    with ordinary_user():
        assert not has_file(inner / "file") and not has_folder(inner / "folder")
