"""SkyRL's published deltas: the manifest and where it may lie."""

import json

import numpy as np
import pytest

from rlmerge.checkpoint import open_checkpoint
from rlmerge.errors import CheckpointError
from support import published

BASE = {"w": np.arange(300, dtype=np.uint16).reshape(30, 10), "n": np.zeros(5, np.uint16)}
NEXT = BASE | {"w": BASE["w"] ^ (BASE["w"] % 7 == 0).astype(np.uint16)}


@pytest.fixture
def base(tmp_path):
    return open_checkpoint(published.model(tmp_path / "base", BASE))


@pytest.fixture
def version(tmp_path):
    return published.skyrl(BASE, NEXT, tmp_path / "run" / "deltas")


def edit(root, change):
    content = json.loads((root / "manifest.json").read_text())
    change(content, content["tensors"][0])
    (root / "manifest.json").write_text(json.dumps(content))


def read(folder, base):
    return open_checkpoint(folder, base=base).tensors["w"].read().reshape(30, 10)


def test_from_the_run_the_deltas_or_the_version(base, version):
    for folder in (version, version.parent, version.parent.parent):
        np.testing.assert_array_equal(read(folder, base), NEXT["w"])


def test_an_earlier_manifest_calls_the_checksum_sha256(base, version):
    def change(_, record):
        del record["checksum"], record["checksum_algorithm"]
        record["sha256"] = published.digest("sha256", NEXT["w"].tobytes())

    edit(version, change)
    np.testing.assert_array_equal(read(version, base), NEXT["w"])
    edit(version, lambda _, record: record.update(sha256="0" * 64))
    with pytest.raises(CheckpointError, match="does not give the bytes whose sha256"):
        read(version, base)


BROKEN = {
    "must hold an object with a list of tensors": lambda c, r: c.update(tensors=3),
    "must name version and base_version": lambda c, r: c.update(base_version="0"),
    "its record of tensor 'w' is malformed": lambda c, r: r.pop("shape"),
    "its record of tensor 5 is malformed": lambda c, r: r.update(name=5),
    "its record of tensor 'w' is malformed ": lambda c, r: c["tensors"].append(r),
    "lacks the compressed bytes 'v'": lambda c, r: r.update(payload_key="v"),
    "is not a plain file name": lambda c, r: r.update(payload_file="../x"),
    "unknown checksum 'crc7'": lambda c, r: r.update(checksum_algorithm="crc7"),
    "states no checksum": lambda c, r: r.update(checksum=None),
}


@pytest.mark.parametrize("message", BROKEN)
def test_a_broken_manifest_is_one_error(base, version, message):
    edit(version, BROKEN[message])
    with pytest.raises(CheckpointError, match=message.strip()):
        open_checkpoint(version, base=base)


@pytest.mark.parametrize("fields", [{"dtype": "float16"}, {"shape": [300]}])
def test_a_tensor_unlike_the_base_s(base, version, fields):
    edit(version, lambda _, record: record.update(fields))
    with pytest.raises(CheckpointError, match=r"changes a tensor .*; the base has bfloat16 \[30, 10\]"):
        read(version, base)
