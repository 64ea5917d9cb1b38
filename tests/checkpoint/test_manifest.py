import json
import os
from dataclasses import replace

import pytest

from rlmerge.checkpoint.manifest import FileRecord, Manifest, TensorRecord, read_manifest
from rlmerge.errors import CheckpointError

MANIFEST = Manifest(
    "0.1.0",
    {"model.safetensors": FileRecord("ab", 10), "config.json": FileRecord("cd", 2)},
    {
        "wé": TensorRecord("model.safetensors", "BF16", (2, 3), "ef"),
        "b": TensorRecord("model.safetensors", "F32", (), "01"),
    },
)


def test_content():
    assert MANIFEST.to_json().decode() == (
        "{\n"
        '"format_version": 2,\n'
        '"rlmerge": "0.1.0",\n'
        '"files": {\n'
        '"config.json": {"blake3": "cd", "bytes": 2},\n'
        '"model.safetensors": {"blake3": "ab", "bytes": 10}\n'
        "},\n"
        '"tensors": {\n'
        '"b": {"file": "model.safetensors", "dtype": "F32", "shape": [], "xxh3": "01"},\n'
        '"wé": {"file": "model.safetensors", "dtype": "BF16", "shape": [2, 3], "xxh3": "ef"}\n'
        "}\n"
        "}\n"
    )


@pytest.mark.parametrize("manifest", [MANIFEST, Manifest("9", {}, {})])
def test_round_trip(tmp_path, manifest):
    (tmp_path / "MANIFEST.json").write_bytes(manifest.to_json())
    assert read_manifest(tmp_path) == manifest


def test_order_does_not_matter():
    turned = Manifest("0.1.0", dict(reversed(MANIFEST.files.items())), dict(reversed(MANIFEST.tensors.items())))
    assert turned.to_json() == MANIFEST.to_json()


def test_no_manifest(tmp_path):
    with pytest.raises(CheckpointError, match=r"has no MANIFEST\.json"):
        read_manifest(tmp_path)
    with pytest.raises(CheckpointError, match=r"has no MANIFEST\.json"):
        read_manifest(tmp_path / "absent")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 3}, "has format version '3', not 1 or 2"),
        ({"format_version": True}, "has format version 'True'"),
        ({"format_version": 1}, "file 'config.json' needs sha256 and bytes"),
        ({"format_version": [2]}, "has format version"),
        ({"rlmerge": None}, "it needs rlmerge, a string"),
        ({"files": []}, "is not a manifest"),
        ({"files": {"a": {"blake3": "x"}}}, "is not a manifest"),
        ({"files": {"a": {"blake3": "x", "bytes": 1, "more": 2}}}, "is not a manifest"),
        ({"files": {"a": {"blake3": "x", "bytes": "1"}}}, "is not a manifest"),
        ({"files": {"a": {"blake3": None, "bytes": 1}}}, "is not a manifest"),
        ({"files": {"a": {"blake3": "x", "bytes": True}}}, "is not a manifest"),
        ({"files": {"a": {"blake3": "x", "bytes": -1}}}, "is not a manifest"),
        ({"files": {"a": {"blake3": "x", "bytes": 10**400}}}, "is not a manifest"),
        ({"files": {"a": ["blake3", "bytes"]}}, "is not a manifest"),
        ({"tensors": None}, "is not a manifest"),
        ({"tensors": {"a": {}}}, "is not a manifest"),
        ({"tensors": {"a": {"file": "f", "dtype": "F32", "shape": [1.5], "xxh3": ""}}}, "is not a manifest"),
        ({"tensors": {"a": {"file": "f", "dtype": "F32", "shape": [[]], "xxh3": ""}}}, "is not a manifest"),
        ({"tensors": {"a": {"file": 1, "dtype": "F32", "shape": [], "xxh3": ""}}}, "is not a manifest"),
        ({"tensors": {"a": {"file": "f", "dtype": "F32", "shape": 3, "xxh3": ""}}}, "is not a manifest"),
    ],
)
def test_a_broken_manifest(tmp_path, change, message):
    content = json.loads(MANIFEST.to_json()) | change
    (tmp_path / "MANIFEST.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=message):
        read_manifest(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format_version": 1}', '{"files": {}, "files": {}}'])
def test_what_is_no_manifest_at_all(tmp_path, content):
    (tmp_path / "MANIFEST.json").write_text(content)
    with pytest.raises(CheckpointError):
        read_manifest(tmp_path)


def test_a_manifest_of_the_first_format(tmp_path):
    old = replace(MANIFEST, algorithm="sha256")
    (tmp_path / "MANIFEST.json").write_bytes(old.to_json())
    assert b'"format_version": 1' in old.to_json() and b'"config.json": {"sha256": "cd", "bytes": 2}' in old.to_json()
    assert read_manifest(tmp_path) == old


def test_what_cannot_be_read(tmp_path, common_folder, ordinary_user):
    os.mkfifo(tmp_path / "MANIFEST.json")
    with pytest.raises(CheckpointError, match="is not a regular file"):
        read_manifest(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    for name in ("loop", "a\0b"):
        with pytest.raises(CheckpointError):
            read_manifest(tmp_path / name)
    (common_folder / "closed").mkdir(mode=0)
    with ordinary_user(), pytest.raises(CheckpointError, match="permission denied"):
        read_manifest(common_folder / "closed")
