"""slime's published deltas: the index, versions that are full models, and payloads without an index."""

import json
import shutil

import numpy as np
import pytest

from rlmerge.checkpoint import Extent, open_checkpoint
from rlmerge.checkpoint.files import InputFile
from rlmerge.checkpoint.formats.delta_slime import OverwritePatch
from rlmerge.errors import CheckpointError
from rlmerge.kernels.dtypes import BY_NAME
from support import published

BASE = {"w": np.arange(300, dtype=np.uint16), "n": np.zeros(5, np.uint16)}
NEXT = BASE | {"w": BASE["w"] ^ np.uint16(1) * (np.arange(300, dtype=np.uint16) % 7 == 0)}
LAST = NEXT | {"w": NEXT["w"][::-1].copy()}
INDEX = "model.safetensors.index.json"


@pytest.fixture
def base(tmp_path):
    return open_checkpoint(published.model(tmp_path / "base", BASE))


@pytest.fixture
def version(tmp_path):
    return published.slime(BASE, NEXT, tmp_path / "run", "xor")


def edit(root, change):
    content = json.loads((root / INDEX).read_text())
    change(content)
    (root / INDEX).write_text(json.dumps(content))


def read(folder, base):
    return open_checkpoint(folder, base=base).tensors["w"].read()


def test_numbers_may_be_numbers(base, version):
    edit(version, lambda content: content["metadata"].update(version=1, base_version=0))
    np.testing.assert_array_equal(read(version, base), NEXT["w"])


def test_a_version_under_another_name(base, version, tmp_path):
    shutil.move(version, tmp_path / "renamed")
    np.testing.assert_array_equal(read(tmp_path / "renamed", base), NEXT["w"])


def test_an_unchanged_tensor_is_the_base_s(base, version):
    assert open_checkpoint(version, base=base).tensors["n"] is base.tensors["n"]


def test_a_full_version_is_the_base_of_those_after_it(base, version, tmp_path):
    """Between two deltas; only what follows it is applied, to it."""
    full = tmp_path / "run" / "weight_v000002"
    published.save(full / "model-00001-of-00001.safetensors", NEXT, {"format": "pt"})
    (full / INDEX).write_text(
        json.dumps({"metadata": {}, "weight_map": dict.fromkeys(NEXT, "model-00001-of-00001.safetensors")})
    )
    published.slime(NEXT, LAST, tmp_path / "run", "xor", 3)
    np.testing.assert_array_equal(read(tmp_path / "run", open_checkpoint(full)), LAST["w"])
    shutil.rmtree(version)
    shutil.rmtree(tmp_path / "run" / "weight_v000003")
    with pytest.raises(
        CheckpointError, match=r"holds full versions only, no delta\n  Name one of them, such as .*weight_v000002"
    ):
        open_checkpoint(tmp_path / "run", base=base)


BROKEN = {
    "must hold metadata, and a weight_map of file names": lambda c: c.update(weight_map={"w": 3}),
    "version must be a number, not 'x'": lambda c: c["metadata"].update(version="x"),
    "base_version must be a number, not None": lambda c: c["metadata"].pop("base_version"),
    "is encoded as 'sum' and compressed as 'zstd'": lambda c: c["metadata"].update(delta_encoding="sum"),
    "is encoded as 'xor' and compressed as 'lz4'": lambda c: c["metadata"].update(compression_format="lz4"),
    "unknown checksum 'crc7'\n  Known: xxh3-128": lambda c: c["metadata"].update(checksum_format="crc7"),
    "lacks the compressed bytes of tensor 'v'": lambda c: c["weight_map"].update(v=c["weight_map"]["w"]),
    "is not a plain file name": lambda c: c["weight_map"].update(w="../w.safetensors"),
    "says that it changes version 7": lambda c: c["metadata"].update(base_version=7),
}


@pytest.mark.parametrize("message", BROKEN)
def test_a_broken_index_is_one_error(base, version, tmp_path, message):
    if "changes version 7" in message:
        published.slime(NEXT, LAST, tmp_path / "run", "xor", 7)
    edit(version, BROKEN[message])
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(version, base=base)


def test_a_tensor_without_a_checksum(base, version):
    file = version / "model-00000-of-00001.safetensors"
    published.save(file, {"w": published.frame(b"\0" * 600)}, {"other": "1"})
    with pytest.raises(CheckpointError, match="states no checksum"):
        open_checkpoint(version, base=base)


def test_the_payload_without_its_index_is_no_model(version, tmp_path):
    lone = tmp_path / "lone"
    lone.mkdir()
    shutil.copy(version / "model-00000-of-00001.safetensors", lone / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"the payload of a sparse delta without its model\.safetensors\.index\.json"
    ):
        open_checkpoint(lone)


def test_bytes_that_are_no_payload_are_a_model(tmp_path):
    folder = published.model(tmp_path / "m", {"w": np.arange(9, dtype=np.uint8)})
    assert set(open_checkpoint(folder).tensors) == {"w"}


def test_positions_of_four_bytes_do_not_reach_beyond_4_gib(version):
    payload = Extent("w", BY_NAME["uint8"], (8,), InputFile(version / INDEX), 0, 8)
    large = Extent("w", BY_NAME["bfloat16"], (1 << 32,), payload.file, 0, 1 << 33)
    with pytest.raises(CheckpointError, match="4-byte positions reach the first 4 GiB alone\n  Publish with the xor"):
        OverwritePatch(payload).begin(large)
