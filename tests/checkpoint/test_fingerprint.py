import itertools
import os

import pytest

from rlmerge.checkpoint import fingerprint as module
from rlmerge.checkpoint import read_header
from rlmerge.checkpoint.fingerprint import edition, fingerprint
from rlmerge.checkpoint.source import samples
from rlmerge.errors import CheckpointError


def of(*files):
    return fingerprint(dict(itertools.chain.from_iterable(read_header(file).tensors.items() for file in files)))


def test_independent_of_file_names_sharding_and_order(tmp_path, write_tensors):
    whole = write_tensors(tmp_path / "whole", {"x": [1, 2], "y": [3]}, {"made": "here"})
    first, second = write_tensors(tmp_path / "1", {"y": [3]}), write_tensors(tmp_path / "2", {"x": [1, 2]})
    assert of(whole) == of(first, second)
    assert len(of(whole)) == 32


def test_every_byte_name_and_shape_of_a_small_model_counts(tmp_path, write_tensors, write_raw):
    x = {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]}
    variants = [
        write_tensors(tmp_path / "0", {"x": [1, 2]}),
        write_tensors(tmp_path / "1", {"x": [1, 3]}),
        write_tensors(tmp_path / "2", {"z": [1, 2]}),
        write_raw(tmp_path / "3", {"x": x}, bytes([0, 0, 128, 63, 0, 0, 0, 64])),
        write_raw(tmp_path / "4", {"x": x | {"shape": [2], "dtype": "I32"}}, bytes([0, 0, 128, 63, 0, 0, 0, 64])),
    ]
    assert len({of(file) for file in variants}) == len(variants)


def test_blocks_of_a_large_tensor(tmp_path, write_raw):
    count = 50 * 2**20
    header = {"w": {"dtype": "U8", "shape": [count], "data_offsets": [0, count]}}
    file = write_raw(tmp_path / "f", header)
    with file.open("r+b") as handle:
        handle.truncate(file.stat().st_size + count)
    [tensor] = read_header(file).tensors.values()
    blocks = list(samples(tensor.nbytes, False))
    assert blocks[0] == (0, 4096)
    assert blocks[-1] == (count - 4096, 4096)
    assert len(blocks) == 5
    gaps = [after[0] - before[0] for before, after in itertools.pairwise(blocks)]
    assert max(gaps) - min(gaps) <= 1 and max(gaps) <= 16 * 2**20
    assert sum(length for _, length in samples(tensor.nbytes, True)) == count


def test_sampling_sees_the_sampled_blocks(tmp_path, write_raw, monkeypatch):
    monkeypatch.setattr(module, "WHOLE", 0)
    count = 100_000
    header = {"w": {"dtype": "U8", "shape": [count], "data_offsets": [0, count]}}
    same = of(write_raw(tmp_path / "same", header, bytes(count)))
    # Four blocks start at 0, 31968, 63936 and 95904: the last byte is in one, byte 10 000 in none.
    assert of(write_raw(tmp_path / "end", header, bytes(count - 1) + b"\1")) != same
    assert of(write_raw(tmp_path / "between", header, bytes(10_000) + b"\1" + bytes(count - 10_001))) == same


def test_a_file_that_is_gone(tmp_path, write_tensors):
    tensors = read_header(write_tensors(tmp_path / "f", {"x": [1]})).tensors
    (tmp_path / "f").unlink()
    with pytest.raises(CheckpointError, match="does not exist"):
        fingerprint(tensors)


def test_an_edit_between_the_samples_makes_another_edition(tmp_path, write_tensors, monkeypatch):
    file = write_tensors(tmp_path / "model", {"x": [0.0] * 20_000})
    (x,) = read_header(file).tensors.values()

    def identities():
        tensors = read_header(file).tensors
        found = fingerprint(tensors)
        return found, edition(tensors, found)

    before = identities()
    assert before[0] == before[1], "models that are hashed completely need no more than that"
    monkeypatch.setattr(module, "WHOLE", 0)
    before = identities()
    content = bytearray(file.read_bytes())
    content[x.start + 10_000] = 1
    file.write_bytes(content)
    os.utime(file, ns=(0, 10**18))
    after = identities()
    assert after[0] == before[0]
    assert after[1] != before[1]
