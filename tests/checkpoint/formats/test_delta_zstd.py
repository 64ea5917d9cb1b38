"""Compressed streams, scratch files and checksums."""

import sys

import numpy as np
import pytest
import zstandard

from rlmerge.checkpoint import ArraySource
from rlmerge.checkpoint.formats import delta_zstd
from rlmerge.checkpoint.formats.delta_zstd import Check, Spool, Stream, check_of
from rlmerge.errors import CheckpointError, RequestError
from rlmerge.kernels.dtypes import BY_NAME

DATA = np.random.default_rng(1).integers(0, 9, 300_000, dtype=np.uint8)


def source(data):
    return ArraySource("w", BY_NAME["uint8"], np.frombuffer(data, np.uint8), "file")


def compress(data, **options):
    return zstandard.ZstdCompressor(**options).compress(bytes(data))


def test_pieces_in_sequence():
    stream = Stream(source(compress(DATA)))
    assert stream.read(7).tolist() == DATA[:7].tolist()
    stream.skip(100_000)
    assert stream.read(199_993).tobytes() == DATA[100_007:].tobytes()
    stream.finish()
    with pytest.raises(CheckpointError, match="file: w: is truncated: 1 bytes more were due"):
        stream.read(1)


def test_several_frames_are_one_content():
    stream = Stream(source(compress(DATA[:1000]) + compress(DATA[1000:])))
    assert stream.read(len(DATA)).tobytes() == DATA.tobytes()
    stream.finish()


def test_a_frame_without_its_size():
    """As streaming compressors write it."""
    compressor = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    stream = Stream(source(compressor.compress(DATA.tobytes()) + compressor.flush()))
    assert stream.read(len(DATA)).tobytes() == DATA.tobytes()


def test_what_is_left_is_an_error():
    stream = Stream(source(compress(DATA)))
    stream.read(len(DATA) - 1)
    with pytest.raises(CheckpointError, match="holds more bytes than the tensor has"):
        stream.finish()


def test_a_damaged_frame():
    """One with a checksum of its own, as the zstd command writes it."""
    data = bytearray(compress(DATA, write_checksum=True))
    data[1000] ^= 1
    with pytest.raises(CheckpointError, match="is no sound zstd data"):
        Stream(source(bytes(data))).read(len(DATA))


@pytest.mark.parametrize("data", [b"", b"\0", b"PK\3\4abcdefgh"])
def test_what_is_no_frame(data):
    with pytest.raises(CheckpointError, match="is no sound zstd data"):
        Stream(source(data))


def test_a_scratch_file_gives_what_was_written():
    spool = Spool(10)
    spool.write(np.arange(4, dtype=np.uint8))
    spool.write(np.arange(6, dtype=np.uint8))
    assert spool.array().tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 4, 5]
    assert Spool(0).array().tolist() == []


def test_scratch_files_go_where_tmpdir_says(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    monkeypatch.setattr(delta_zstd.tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(Exception, match=r"No such file.*\n  Set TMPDIR"):
        Spool(1)


@pytest.mark.parametrize(
    ("algorithm", "digest"),
    [
        ("xxh3-128", "06b05ab6733a618578af5f94892f3950"),
        ("sha256", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        ("adler32", "024d0127"),
    ],
)
def test_digests_of_abc(algorithm, digest):
    """SHA-256 from FIPS 180-2, Adler-32 from RFC 1950's definition, XXH3-128 from the reference implementation."""
    hasher = check_of(algorithm, digest.upper(), "f").begin()
    hasher.update(b"ab")
    hasher.update(b"c")
    assert hasher.hexdigest() == digest
    assert check_of(algorithm, digest.upper(), "f") == Check(algorithm, digest)


def test_a_digest_that_needs_a_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "blake3", None)
    with pytest.raises(RequestError, match=r"needs the package 'blake3'.*\n  pip install blake3"):
        check_of("blake3", "00", "f").begin()


@pytest.mark.parametrize(
    ("algorithm", "digest", "message"), [("md9", "0", "unknown checksum 'md9'"), ("sha256", 3, "no checksum")]
)
def test_checks_that_cannot_be_made(algorithm, digest, message):
    with pytest.raises(CheckpointError, match=message):
        check_of(algorithm, digest, "f")
