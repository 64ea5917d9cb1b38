import os

import pytest
import xxhash
from blake3 import blake3

from rlmerge.checkpoint import hashing
from rlmerge.checkpoint.hashing import BLAKE3, PIECE, SHA256, ShardHash, read_through


def test_both_digests():
    running = ShardHash(b"header")
    running.update(b"fir")
    running.update(memoryview(b"st"))
    assert running.finish_tensor() == xxhash.xxh3_64_hexdigest(b"first")
    running.update(b"second")
    assert running.finish_tensor() == xxhash.xxh3_64_hexdigest(b"second")
    assert running.hexdigest() == blake3(b"headerfirstsecond").hexdigest()


def test_known_values():
    # XXH3 of no input, SHA-256 of "abc" and BLAKE3 of "abc", as their specifications and reference vectors print them.
    running = ShardHash(b"abc", (BLAKE3, SHA256))
    assert running.finish_tensor() == "2d06800538d394c2"
    assert running.hexdigest() == "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"
    assert running.hexdigest(SHA256) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_copy_goes_its_own_way():
    running = ShardHash(b"a")
    other = running.copy()
    running.update(b"x")
    other.update(b"y")
    assert running.hexdigest() == blake3(b"ax").hexdigest()
    assert other.hexdigest() == blake3(b"ay").hexdigest()
    assert other.finish_tensor() == xxhash.xxh3_64_hexdigest(b"y")


@pytest.mark.parametrize(("offset", "length", "whole"), [(0, 10, True), (3, 4, True), (10, 0, True), (4, 7, False)])
def test_read_through(tmp_path, monkeypatch, offset, length, whole):
    monkeypatch.setattr(hashing, "PIECE", 3)
    (tmp_path / "f").write_bytes(b"0123456789")
    fd = os.open(tmp_path / "f", os.O_RDONLY)
    pieces = []
    assert read_through(fd, offset, length, lambda piece: pieces.append(bytes(piece))) is whole
    os.close(fd)
    assert b"".join(pieces) == b"0123456789"[offset : offset + length]
    assert all(len(piece) <= 3 for piece in pieces)


def test_pieces_do_not_show_in_the_digests():
    data = bytes(range(256)) * (3 * PIECE // 256 + 1)
    running = ShardHash(b"")
    running.update(data[:7])
    running.update(memoryview(data)[7:])
    assert running.finish_tensor() == xxhash.xxh3_64_hexdigest(data)
    assert running.hexdigest() == blake3(data).hexdigest()
