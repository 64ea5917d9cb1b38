import json
import os

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from rlmerge.checkpoint.header import MAX_HEADER, MAX_NAME, MAX_RANK, check_name, read_header
from rlmerge.errors import CheckpointError
from rlmerge.kernels.dtypes import BFLOAT16, BY_CODE


def entry(start, stop, dtype="F32", shape=None):
    return {"dtype": dtype, "shape": [(stop - start) // 4] if shape is None else shape, "data_offsets": [start, stop]}


def test_worked_example(tmp_path, write_raw):
    header = {
        "__metadata__": {"format": "pt"},
        "w": {"dtype": "BF16", "shape": [2, 3, 4], "data_offsets": [8, 56]},
        "b": {"dtype": "F64", "shape": [], "data_offsets": [0, 8]},
        "empty": {"dtype": "I32", "shape": [0, 5], "data_offsets": [8, 8]},
    }
    file = write_raw(tmp_path / "f", header, bytes(56))
    found = read_header(file)
    begin = 8 + len(json.dumps(header))
    assert list(found.tensors) == ["b", "empty", "w"], "in the order of their bytes"
    assert found.metadata == {"format": "pt"}
    w, b, empty = found.tensors["w"], found.tensors["b"], found.tensors["empty"]
    assert (w.dtype, w.shape, w.file.path, w.start, w.stop) == (BFLOAT16, (2, 3, 4), file, begin + 8, begin + 56)
    assert (w.numel, w.nbytes, w.rows, w.columns) == (24, 48, 6, 4)
    assert (b.numel, b.nbytes, b.rows, b.columns) == (1, 8, 1, 1)
    assert (empty.numel, empty.nbytes, empty.rows, empty.columns) == (0, 0, 0, 5)


def test_vector_is_one_row(tmp_path, write_raw):
    tensor = read_header(write_raw(tmp_path / "f", {"v": entry(0, 12)}, bytes(12))).tensors["v"]
    assert (tensor.rows, tensor.columns) == (1, 3)


@pytest.mark.parametrize("code", sorted(BY_CODE))
def test_every_element_type_as_the_safetensors_library_reads_it(tmp_path, write_raw, code):
    size = 6 * BY_CODE[code].itemsize
    file = write_raw(tmp_path / "f", {"t": entry(0, size, dtype=code, shape=[2, 3])}, bytes(range(size)))
    [(name, theirs)] = safetensors.deserialize(file.read_bytes())
    ours = read_header(file).tensors[name]
    assert (ours.dtype.code, list(ours.shape)) == (theirs["dtype"], theirs["shape"]) == (code, [2, 3])
    assert file.read_bytes()[ours.start : ours.stop] == theirs["data"]


def test_file_written_by_the_safetensors_library(tmp_path):
    names = ("float64", "float32", "float16", "int64", "int8", "uint32", "bool")
    tensors = {name: np.arange(6).reshape(2, 3).astype(name) for name in names}
    tensors |= {"scalar": np.array(7, np.float32), "empty": np.zeros((0, 4), np.int64)}
    safetensors.numpy.save_file(tensors, tmp_path / "f", {"made": "here"})
    header = read_header(tmp_path / "f")
    octets = (tmp_path / "f").read_bytes()
    assert header.metadata == {"made": "here"}
    for name, array in tensors.items():
        found = header.tensors[name]
        assert (found.dtype.name, found.shape) == (array.dtype.name, array.shape)
        assert octets[found.start : found.stop] == array.tobytes()


HOSTILE = {
    "truncated data": ({"a": entry(0, 8)}, 4, "is truncated: its tensors end at byte .*, the file has"),
    "data after the last tensor": ({"a": entry(0, 8)}, 9, "has 1 bytes after its last tensor"),
    "data of no tensor": ({}, 3, "has 3 bytes after its last tensor"),
    "overlap": ({"a": entry(0, 8), "b": entry(4, 12)}, 12, "tensor 'b' overlaps tensor 'a' by 4 bytes"),
    "one inside the other": ({"a": entry(0, 12), "b": entry(4, 8)}, 12, "tensor 'b' overlaps tensor 'a' by 4 bytes"),
    "the same bytes twice": ({"a": entry(0, 8), "b": entry(0, 8)}, 8, "tensor 'b' overlaps tensor 'a' by 8 bytes"),
    "hole": ({"a": entry(0, 4), "b": entry(8, 12)}, 12, "4 bytes between tensor 'a' and tensor 'b'"),
    "hole at the start": ({"a": entry(4, 8)}, 8, "4 bytes between the header and tensor 'a'"),
    "range and shape differ": ({"a": entry(0, 8, shape=[3])}, 8, r"F32 \[3\] takes 12 bytes, but .* holds 8"),
    "negative size": ({"a": entry(0, 8, shape=[-1, -2])}, 8, "sizes of at least 0"),
    "size that is not an integer": ({"a": entry(0, 8, shape=[2.0])}, 8, "sizes of at least 0"),
    "boolean size": ({"a": entry(0, 4, shape=[True])}, 4, "sizes of at least 0"),
    "huge size": ({"a": entry(0, 0, shape=[0, 2**63])}, 0, "sizes of at least 0"),
    "sizes whose product is huge": (
        {"a": entry(0, 8, shape=[2**62, 2**62])},
        8,
        r"F32 \[4611686018427387904, 4611686018427387904\] takes 2\*\*63 bytes or more",
    ),
    "shape that is not a list": ({"a": entry(0, 8, shape="2")}, 8, "sizes of at least 0"),
    "reversed range": ({"a": entry(8, 0, shape=[0])}, 8, r"0 <= start <= stop"),
    "negative offset": ({"a": entry(-8, 0, shape=[2])}, 8, r"0 <= start <= stop"),
    "three offsets": ({"a": entry(0, 4) | {"data_offsets": [0, 4, 8]}}, 8, r"0 <= start <= stop"),
    "missing field": ({"a": {"dtype": "F32", "shape": [1]}}, 4, "exactly dtype, shape and data_offsets"),
    "extra field": ({"a": entry(0, 4) | {"path": "/etc"}}, 4, "exactly dtype, shape and data_offsets"),
    "not an object": ({"a": 7}, 4, "exactly dtype, shape and data_offsets"),
    "unknown type": ({"a": entry(0, 4, dtype="BF61")}, 4, "unknown element type 'BF61'\n  Did you mean 'BF16'?"),
    "type that is no string": ({"a": entry(0, 4, dtype=["F32"])}, 4, "unknown element type"),
    "control character": ({"a\x1b[2J": entry(0, 4)}, 4, "control or other"),
    "lone surrogate": (b'{"\\ud800": {}}', 0, "half of a surrogate pair"),
    "metadata that are not strings": ({"__metadata__": {"n": 1}}, 0, "must map strings to strings"),
    "metadata that are a list": ({"__metadata__": []}, 0, "must map strings to strings"),
    "list instead of object": (b"[]", 0, "does not start with a safetensors header"),
    "leading space": (b' {"a": 1}', 0, "does not start with a safetensors header"),
    "empty header": (b"", 0, "does not start with a safetensors header"),
    "invalid JSON": (b'{"a": }', 0, "must have exactly dtype"),
    "invalid UTF-8": (b'{"\xff": 1}', 0, "header: is not UTF-8"),
    "tensor twice": (b'{"a": %s, "a": {}}' % json.dumps(entry(0, 0)).encode(), 0, "header: the key 'a' appears twice"),
    "field twice": (b'{"a": {"dtype": "F32", "dtype": "F64"}}', 0, "tensor 'a': the key 'dtype' appears twice"),
    "deep nesting": (b'{"a":' + b"[" * 99_999, 0, "must have exactly dtype"),
    "an object in an entry": ({"a": entry(0, 4) | {"dtype": {}}}, 4, "must have exactly dtype"),
    "more dimensions than NumPy has": ({"a": entry(0, 4, shape=[1] * 65)}, 4, "has 65 dimensions; at most 64"),
    "product beyond an integer that may be printed": ({"a": entry(0, 32, shape=[2**62] * 300)}, 32, "has 300 dimens"),
    "an empty dimension behind huge ones": ({"a": entry(0, 0, shape=[2**62, 2**62, 0])}, 0, r"takes 2\*\*63 bytes"),
    "an empty dimension before huge ones": ({"a": entry(0, 0, shape=[0, 2**62, 2**62])}, 0, r"takes 2\*\*63 bytes"),
    "huge only in bytes": ({"a": entry(0, 0, dtype="F64", shape=[2**60, 0])}, 0, r"takes 2\*\*63 bytes"),
    "minus zero as a size": (b'{"a":{"dtype":"U8","shape":[-0],"data_offsets":[0,0]}}', 0, "without a sign"),
    "minus zero as an offset": (b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[-0,0]}}', 0, "without a sign"),
    "a long name": ({"a" * 1025: entry(0, 4)}, 4, "has 1,025 characters; at most 1,024"),
    "a long entry": (b'{"a":{' + b" " * 2**16 + b"}}", 0, "is 65,538 bytes long; 65,536 are allowed"),
    "half a pair in metadata": (b'{"__metadata__":{"a":"\\ud800"}}', 0, "half of a surrogate pair"),
    "metadata twice": (b'{"__metadata__":{},"__metadata__":{}}', 0, "'__metadata__' appears twice"),
    "text behind the header": (b"{} x", 0, "expected nothing more"),
    "a comma at the end": (b'{"__metadata__":{},}', 0, "expected a key"),
    "no comma between": (b'{"__metadata__":{} "a":{}}', 0, "expected a comma or a brace"),
    "no end": (b'{"__metadata__":{}', 0, "expected a comma or a brace"),
    "a control character in a name": (b'{"a\n":{}}', 0, "is not valid JSON"),
    "null for a tensor": (b'{"a":null}', 0, "must have exactly dtype"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_headers_are_refused(tmp_path, write_raw, case):
    header, size, message = HOSTILE[case]
    file = write_raw(tmp_path / "model.safetensors", header, bytes(size))
    with pytest.raises(CheckpointError, match=message) as caught:
        read_header(file)
    assert str(caught.value).startswith(str(file)), "the message begins with the file"
    assert caught.value.hint


@pytest.mark.parametrize("case", HOSTILE)
def test_messages_are_short(tmp_path, write_raw, case):
    header, size, _ = HOSTILE[case]
    with pytest.raises(CheckpointError) as caught:
        read_header(write_raw(tmp_path / "f", header, bytes(size)))
    assert len(str(caught.value)) < len(str(tmp_path)) + 400


def test_the_largest_that_is_allowed(tmp_path, write_raw):
    header = {
        "__metadata__": {"}": '{"a": 1}', "\u00e9": "\\"},
        "n" * MAX_NAME: entry(0, 4, shape=[1] * MAX_RANK),
        "empty": entry(4, 4, shape=[2**60, 0]),
    }
    found = read_header(write_raw(tmp_path / "f", header, bytes(4)))
    assert found.metadata == header["__metadata__"]
    assert [tensor.shape for tensor in found.tensors.values()] == [(1,) * 64, (2**60, 0)]
    assert found.tensors["empty"].nbytes == 0


@pytest.mark.parametrize("header", [b"{}", b"{ \n}", b'{"__metadata__":null}  ', b'{ "__metadata__" : {} , "a": %s }'])
def test_blanks_and_empty_headers(tmp_path, write_raw, header):
    raw = header % json.dumps(entry(0, 4)).encode() if b"%s" in header else header
    assert len(read_header(write_raw(tmp_path / "f", raw, bytes(4 * (b"%s" in header)))).tensors) == header.count(b"%s")


def test_too_many_tensors(tmp_path, write_raw, monkeypatch):
    monkeypatch.setattr("rlmerge.checkpoint.header.MAX_TENSORS", 2)
    tensors = {name: entry(0, 0) for name in "abc"}
    assert len(read_header(write_raw(tmp_path / "f", {"a": tensors["a"], "b": tensors["b"]})).tensors) == 2
    with pytest.raises(CheckpointError, match=r"holds more than 2 tensors\n  Save it in shards"):
        read_header(write_raw(tmp_path / "f", tensors))


def test_too_much_metadata(tmp_path, write_raw):
    with pytest.raises(CheckpointError, match="is 2,097,160 bytes long; 2,097,152 are allowed"):
        read_header(write_raw(tmp_path / "f", b'{"__metadata__":{"a":"' + b"x" * 2**21 + b'"}}'))


@pytest.mark.parametrize(
    ("start", "filler"),
    [(b'{"a":{', b"["), (b'{"', b"\\"), (b'{"a":{', b'"'), (b"{", b" "), (b'{"a":{"', b"x")],
    ids=["lists", "backslashes", "quotes", "blanks", "text"],
)
def test_reading_takes_time_in_proportion_to_the_header(tmp_path, write_raw, start, filler):
    with pytest.raises(CheckpointError):
        read_header(write_raw(tmp_path / "f", start + filler * 10**6))


@pytest.mark.parametrize(
    ("name", "fine"),
    [("model.w", True), ("é 模", True), ("", True), ("a\n", False), ("\ud800", False), ("n" * 1025, False)],
)
def test_names_of_tensors(name, fine):
    if fine:
        check_name(name, "f")
    else:
        with pytest.raises(CheckpointError, match="the name of tensor"):
            check_name(name, "f")


@pytest.mark.parametrize("octets", [b"", b"\x01", b"\x00" * 7])
def test_too_short_for_a_length(tmp_path, octets):
    (tmp_path / "f").write_bytes(octets)
    with pytest.raises(CheckpointError, match="cannot hold a safetensors header"):
        read_header(tmp_path / "f")


def test_header_cut_off(tmp_path):
    (tmp_path / "f").write_bytes((100).to_bytes(8, "little") + b'{"a"')
    with pytest.raises(CheckpointError, match="the header needs 108 bytes, the file has 12"):
        read_header(tmp_path / "f")


@pytest.mark.parametrize("length", [MAX_HEADER + 1, 2**64 - 1])
def test_header_bomb_is_refused_before_it_is_read(tmp_path, length):
    with (tmp_path / "f").open("wb") as handle:
        handle.write(length.to_bytes(8, "little"))
        handle.truncate(8 + MAX_HEADER + 100)  # Sparse: takes no space.
    with pytest.raises(CheckpointError, match=f"claims a header of {length} bytes; at most 100000000"):
        read_header(tmp_path / "f")


def test_what_is_not_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, message in (("absent", "does not exist"), (".", "not a regular file"), ("pipe", "not a regular file")):
        with pytest.raises(CheckpointError, match=message):
            read_header(tmp_path / name)


def test_unreadable_file(common_folder, write_raw, ordinary_user):
    file = write_raw(common_folder / "f", {})
    file.chmod(0)
    with ordinary_user(), pytest.raises(CheckpointError, match="permission denied"):
        read_header(file)


@given(st.binary(max_size=200))
def test_random_bytes_end_in_a_header_or_a_checkpoint_error(tmp_path_factory, octets):
    file = tmp_path_factory.getbasetemp() / "fuzz"
    file.write_bytes(octets)
    try:
        assert read_header(file).tensors is not None
    except CheckpointError as error:
        assert error.where


@given(st.data())
def test_a_changed_byte_of_the_header_is_refused_or_stays_within_the_file(tmp_path_factory, data):
    tensors = {"a": np.ones((2, 2), np.float32), "b": np.ones(3, np.int16)}
    octets = bytearray(safetensors.numpy.save(tensors))
    octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    file = tmp_path_factory.getbasetemp() / "flip"
    file.write_bytes(octets)
    try:
        tensors = read_header(file).tensors.values()
    except CheckpointError:
        return
    assert all(0 <= tensor.start <= tensor.stop <= len(octets) for tensor in tensors)
    assert all(tensor.nbytes == tensor.numel * tensor.dtype.itemsize for tensor in tensors)
