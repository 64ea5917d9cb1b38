"""grail's sparse deltas: gaps by hand, anchors, and what is malformed."""

import hashlib
import json
import struct

import numpy as np
import pytest
import zstandard

from rlmerge.checkpoint import open_checkpoint
from rlmerge.errors import CheckpointError
from support import published

BASE = {"w": np.zeros((4, 300), np.uint16), "n": np.zeros(5, np.uint16)}


@pytest.fixture
def base(tmp_path):
    return open_checkpoint(published.model(tmp_path / "base", BASE))


def write(tmp_path, record, chunks, layout=31, window=30, before=0):
    """A version with one record, whose offsets are given, over the concatenated chunks."""
    root = tmp_path / "run" / f"checkpoint-{window}" / "DELTA"
    root.mkdir(parents=True)
    header = json.dumps({"version": layout, "tensors": [record]}).encode()
    payload = published.frame(struct.pack("<I", len(header)) + header + b"".join(chunks)).tobytes()
    (root / "delta_sparse.bin.zst").write_bytes(payload)
    manifest = {"delta_sparse.bin.zst": hashlib.sha256(payload).hexdigest()}
    (root / "metadata.json").write_text(
        json.dumps({"window": window, "prev_window": before, "file_manifest": manifest})
    )
    return tmp_path / "run"


ROWS, COLUMNS = np.array([0, 0, 2, 0, 1], np.uint8), np.array([2, 255, 0, 9, 299], np.uint16)
VALUES = np.array([1, 2, 3, 4, 5], np.uint16)
CHUNKS = [ROWS.tobytes(), COLUMNS.tobytes(), VALUES.tobytes()]
RECORD = {"name": "w", "shape": [4, 300], "num_nonzero": 5, "value_dtype": "bfloat16", "row_dtype": "uint8"}
RECORD |= {"col_dtype": "uint16", "indices_offset": 0, "indices_size": 15, "values_offset": 15, "values_size": 10}


def test_gaps_by_hand(base, tmp_path):
    """Row 0 at 2 and 257, row 2 at 0 and 9, row 3 at 299: a column counts from 0 where the row's gap is not zero."""
    found = open_checkpoint(write(tmp_path, RECORD, CHUNKS), base=base).tensors["w"].read().reshape(4, 300)
    expected = np.zeros((4, 300), np.uint16)
    expected[[0, 0, 2, 2, 3], [2, 257, 0, 9, 299]] = VALUES
    np.testing.assert_array_equal(found, expected)


def test_an_anchor_among_the_versions(base, tmp_path):
    """The deltas of an earlier anchor are no gap: the newest begins at its own."""
    write(tmp_path, RECORD, CHUNKS, window=30)
    (tmp_path / "run" / "checkpoint-60" / "FULL").mkdir(parents=True)
    run = write(tmp_path, RECORD, CHUNKS, window=90, before=60)
    assert open_checkpoint(run, base=base).tensors["w"].read()[2] == 1


BROKEN = {
    "has layout 4\n  Read are layouts 2, 3, 31": ({}, 4),
    "its record of tensor None is malformed": ({"name": None}, 31),
    "its record of tensor 'w' is malformed": ({"value_dtype": "int8"}, 31),
    "its record of tensor 'w' is malformed ": ({"row_dtype": "int8"}, 31),
    "its record of tensor 'w' is malformed  ": ({"num_nonzero": 6}, 31),
    "its record of tensor 'w' is malformed   ": ({"values_offset": 3}, 31),
    "its record of tensor 'w' is malformed    ": ({"indices_offset": -1}, 31),
}


@pytest.mark.parametrize("message", BROKEN)
def test_a_malformed_header_is_refused_when_opened(base, tmp_path, message):
    change, layout = BROKEN[message]
    with pytest.raises(CheckpointError, match=message.strip()):
        open_checkpoint(write(tmp_path, RECORD | change, CHUNKS, layout), base=base)


READ = {
    "is truncated": (RECORD, [*CHUNKS[:2], CHUNKS[2][:4]]),
    "holds more bytes": (RECORD, [*CHUNKS, b"\0"]),
    "names a column outside of its tensor": (RECORD, [CHUNKS[0], COLUMNS.tobytes()[:-2] + b"\x2c\x01", CHUNKS[2]]),
    "its positions do not increase": (RECORD, [np.array([0, 0, 0, 0, 4], np.uint8).tobytes(), *CHUNKS[1:]]),
    "its positions do not increase ": (
        RECORD,
        [CHUNKS[0], np.array([2, 0, 0, 9, 299], np.uint16).tobytes(), CHUNKS[2]],
    ),
    r"changes a tensor bfloat16 \[1200\]; the base has": (RECORD | {"shape": [1200]}, CHUNKS),
}


@pytest.mark.parametrize("message", READ)
def test_malformed_content_is_refused_when_read(base, tmp_path, message):
    record, chunks = READ[message]
    with pytest.raises(CheckpointError, match=message.strip()):
        open_checkpoint(write(tmp_path, record, chunks), base=base).tensors["w"].read()


def test_another_payload_than_the_manifest_s(base, tmp_path):
    run = write(tmp_path, RECORD, CHUNKS)
    file = run / "checkpoint-30" / "DELTA" / "delta_sparse.bin.zst"
    file.write_bytes(
        zstandard.ZstdCompressor(level=9).compress(zstandard.ZstdDecompressor().decompress(file.read_bytes()))
    )
    with pytest.raises(CheckpointError, match=r"does not have the SHA-256 that metadata\.json states"):
        open_checkpoint(run, base=base).tensors["w"].read()


@pytest.mark.parametrize("content", ["[]", '{"window": "30", "prev_window": 0}', "{"])
def test_malformed_metadata(base, tmp_path, content):
    run = write(tmp_path, RECORD, CHUNKS)
    (run / "checkpoint-30" / "DELTA" / "metadata.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"must name window|must hold a JSON object|is not valid JSON"):
        open_checkpoint(run, base=base)


def test_a_header_that_claims_too_much(base, tmp_path):
    run = write(tmp_path, RECORD, CHUNKS)
    file = run / "checkpoint-30" / "DELTA" / "delta_sparse.bin.zst"
    file.write_bytes(published.frame(struct.pack("<I", 2**31) + b"{}").tobytes())
    with pytest.raises(CheckpointError, match="claims a header of 2147483648 bytes"):
        open_checkpoint(run, base=base)
