import pytest

from rlmerge.checkpoint import open_checkpoint
from rlmerge.checkpoint.disguise import refuse_disguise
from rlmerge.checkpoint.header import read_header
from rlmerge.errors import CheckpointError

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'ab' * 32}\nsize 4976698672\n".encode()
PAGES = [b"<!DOCTYPE html><html>", b"\n <!doctype HTML>", b"<html lang='en'>", b"\xef\xbb\xbf<HTML>", b"<head><title>"]


def test_a_pointer_is_named_with_the_size_of_what_it_points_to():
    message = r"here: is a Git LFS pointer of a file of 4,976,698,672 bytes(?s:.*)lfs pull"
    with pytest.raises(CheckpointError, match=message):
        refuse_disguise(POINTER, "here")


def test_a_pointer_that_was_cut():
    with pytest.raises(CheckpointError, match="is a Git LFS pointer, not the file itself"):
        refuse_disguise(POINTER[:60], "here")


@pytest.mark.parametrize("page", PAGES)
def test_a_page(page):
    with pytest.raises(CheckpointError, match="is an HTML page"):
        refuse_disguise(page, "here")


@pytest.mark.parametrize("head", [b"", b"{}", b"<s>[INST]", b"<htmlx", b"version 1", b"\x00" * 512])
def test_what_is_neither(head):
    refuse_disguise(head, "here")


@pytest.mark.parametrize(("content", "message"), [(POINTER, "Git LFS pointer"), (PAGES[0], "HTML page")])
@pytest.mark.parametrize("name", ["a.safetensors", "model.safetensors.index.json", "config.json"])
def test_weights_index_and_configuration(two_shards, content, message, name):
    (two_shards / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{name}: .*{message}"):
        open_checkpoint(two_shards)


def test_a_short_file_is_still_truncated(tmp_path):
    (tmp_path / "x").write_bytes(b"\x01\x00")
    with pytest.raises(CheckpointError, match="truncated: 2 bytes"):
        read_header(tmp_path / "x")
