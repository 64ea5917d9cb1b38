import os
import socket
from pathlib import Path

import pytest

from rlmerge.checkpoint.paths import inside, is_plain_name, open_regular, read_bytes, read_start
from rlmerge.errors import CheckpointError


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x.safetensors",
        "/etc/passwd",
        "a/b",
        "a\\b",
        "C:x",
        "C:\\x",
        "\\\\server\\share\\x",
        "//server/x",
        "a\0b",
        "a\nb",
    ],
)
def test_names_that_could_leave_the_directory(tmp_path, name):
    assert not is_plain_name(name)
    with pytest.raises(CheckpointError, match=r"index\.json: .* is not a plain file name"):
        inside(tmp_path, name, named_by="index.json")


def test_plain_names(tmp_path):
    assert inside(tmp_path, "model-00001-of-00002.safetensors") == tmp_path / "model-00001-of-00002.safetensors"
    assert inside(tmp_path, "..hidden..") == tmp_path / "..hidden.."


def test_nested_names_only_on_request_and_checked_part_by_part(tmp_path):
    assert inside(tmp_path, "a/b.jinja", nested=True) == tmp_path / "a/b.jinja"
    for name in ("a/../../b", "/a", "a//b", "a/"):
        with pytest.raises(CheckpointError, match="not a plain file name"):
            inside(tmp_path, name, nested=True)


def test_link_within_the_directory_is_followed(tmp_path):
    (tmp_path / "real").write_text("x")
    (tmp_path / "link").symlink_to("real")
    assert inside(tmp_path, "link") == tmp_path / "link"


def test_link_out_of_the_directory_is_refused(tmp_path):
    root = tmp_path / "model"
    root.mkdir()
    (tmp_path / "secret").write_text("x")
    (root / "config.json").symlink_to("../secret")
    with pytest.raises(CheckpointError, match=r"config\.json: is a link to .*secret, outside the model directory"):
        inside(root, "config.json")


def test_directory_that_is_a_link_does_not_lead_out(tmp_path):
    root = tmp_path / "model"
    root.mkdir()
    (root / "sub").symlink_to("/etc")
    with pytest.raises(CheckpointError, match="outside the model directory"):
        inside(root, "sub/passwd", nested=True)


def _cache(tmp_path):
    snapshot = tmp_path / "models--org--name" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    blobs = tmp_path / "models--org--name" / "blobs"
    blobs.mkdir()
    (blobs / "0f").write_text("x")
    return snapshot, blobs


def test_hub_cache_links_lead_to_their_own_blobs(tmp_path):
    snapshot, _ = _cache(tmp_path)
    (snapshot / "model.safetensors").symlink_to("../../blobs/0f")
    assert inside(snapshot, "model.safetensors").read_text() == "x"


def test_hub_cache_links_lead_nowhere_else(tmp_path):
    snapshot, blobs = _cache(tmp_path)
    other = tmp_path / "models--org--other" / "blobs"
    other.mkdir(parents=True)
    (other / "0f").write_text("y")
    (blobs / "out").symlink_to(other / "0f")
    (snapshot / "other").symlink_to(other / "0f")
    (snapshot / "refs").symlink_to("../../refs/main")
    (snapshot / "through").symlink_to("../../blobs/out")
    for name in ("other", "refs", "through"):
        with pytest.raises(CheckpointError, match="outside the model directory"):
            inside(snapshot, name)


def test_blobs_beside_an_ordinary_directory_do_not_count(tmp_path):
    root = tmp_path / "models" / "mine"
    root.mkdir(parents=True)
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "0f").write_text("x")
    (root / "f").symlink_to("../../blobs/0f")
    with pytest.raises(CheckpointError, match="outside"):
        inside(root, "f")


def test_read_bytes(tmp_path):
    (tmp_path / "f").write_bytes(b"abcd")
    assert read_bytes(tmp_path / "f", 4) == b"abcd"
    with pytest.raises(CheckpointError, match="is 4 bytes long; at most 3 are read"):
        read_bytes(tmp_path / "f", 3)
    with pytest.raises(CheckpointError, match="does not exist"):
        read_bytes(tmp_path / "absent", 3)


def test_read_bytes_does_not_wait_for_a_fifo(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_bytes(tmp_path / "pipe", 10)


def test_permission_denied(common_folder, ordinary_user):
    (common_folder / "f").write_bytes(b"x")
    (common_folder / "f").chmod(0)
    with ordinary_user(), pytest.raises(CheckpointError, match="permission denied"):
        read_bytes(common_folder / "f", 10)


def test_read_start(tmp_path):
    (tmp_path / "f").write_bytes(b"abcd")
    assert [read_start(tmp_path / "f", limit) for limit in (0, 3, 4, 5)] == [b"", b"abc", b"abcd", b"abcd"]


@pytest.mark.parametrize("read", [open_regular, lambda path: read_start(path, 9), lambda path: read_bytes(path, 9)])
def test_only_regular_files_are_opened(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    for name in ("pipe", "link", "socket", "."):
        with pytest.raises(CheckpointError, match="is not a regular file"):
            read(tmp_path / name)
    with pytest.raises(CheckpointError, match="is not a regular file"):
        read(Path("/dev/zero"))
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read(tmp_path / "loop")


def test_a_pipe_put_in_place_of_the_file_is_not_waited_for(tmp_path, monkeypatch):
    (tmp_path / "f").write_bytes(b"")
    real = os.open

    def swap(path, *flags):
        (tmp_path / "f").unlink()
        os.mkfifo(tmp_path / "f")
        return real(path, *flags)

    monkeypatch.setattr(os, "open", swap)
    with pytest.raises(CheckpointError, match="is not a regular file"):
        open_regular(tmp_path / "f")


def test_links_are_followed_on_request(tmp_path):
    (tmp_path / "f").write_bytes(b"abcd")
    (tmp_path / "link").symlink_to("f")
    os.close(open_regular(tmp_path / "link"))
    with pytest.raises(CheckpointError, match="is not a regular file"):
        open_regular(tmp_path / "link", follow=False)
