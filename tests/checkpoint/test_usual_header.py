"""The quick reading of headers: what it takes, it takes as the thorough one does."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlmerge.checkpoint import header as thorough
from rlmerge.checkpoint.header import read_header
from rlmerge.checkpoint.usual_header import usual_layout
from rlmerge.errors import CheckpointError
from rlmerge.kernels.dtypes import BFLOAT16, BY_NAME

USUAL = {
    "__metadata__": {"format": "pt"},
    "b": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [8, 20]},
    "a": {"dtype": "F64", "shape": [], "data_offsets": [0, 8]},
    "empty": {"dtype": "I32", "shape": [0, 5], "data_offsets": [8, 8]},
}


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" ,\n", "\t:\r ")])
def test_tensors_lie_after_the_header_in_the_order_of_their_bytes(separators):
    raw = json.dumps(USUAL, separators=separators).encode()
    layout = usual_layout(raw)
    at = 8 + len(raw)
    assert layout.tensors == (
        ("a", BY_NAME["float64"], (), at, at + 8),
        ("empty", BY_NAME["int32"], (0, 5), at + 8, at + 8),
        ("b", BFLOAT16, (2, 3), at + 8, at + 20),
    )
    assert (layout.metadata, layout.size) == ({"format": "pt"}, at + 20)


def test_padding_and_letters_of_any_language():
    raw = '{"größe":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}   '.encode()
    assert usual_layout(raw).tensors[0][:3] == ("größe", BY_NAME["uint8"], (1,))


ONE = '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'


@pytest.mark.parametrize(
    "raw",
    [
        "{}",
        ONE,
        ONE + ',"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
        ONE + ',"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        ONE + ',"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}',
        ONE + ',"b":{"dtype":"F32","shape":[2],"data_offsets":[4,8]}}',
        ONE + ',"b":{"dtype":"F32","shape":[01],"data_offsets":[4,8]}}',
        ONE + ',"b":{"dtype":"F32","shape":[-1],"data_offsets":[4,8]}}',
        ONE + ',"b":{"dtype":"F99","shape":[1],"data_offsets":[4,8]}}',
        ONE + ',"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8],"more":1}}',
        ONE + ',"b":{"dtype":"F32","shape":[0,9223372036854775807,9],"data_offsets":[4,4]}}',
        ONE + ',"b\\u0000":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
        ONE + ',"\x7f":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
        ONE + ',"__metadata__":{"a":1}}',
        ONE + ',"__metadata__":{"a":"b"},"__metadata__":{"a":"b"}}',
        ONE + ',"__metadata__":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
        ONE + "} x",
        ONE + ",}",
        ONE + ',\x0b"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
    ],
)
def test_what_is_not_plainly_right_is_left_to_others(raw):
    assert usual_layout(raw.encode()) is None


def test_bytes_that_are_no_text_are_left_to_others():
    assert usual_layout(b'{"\xff":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}') is None


@given(st.data())
@settings(max_examples=300)
def test_a_changed_header_is_taken_by_both_alike_or_left_to_the_thorough_one(tmp_path_factory, data):
    raw = bytearray(json.dumps(USUAL, separators=(",", ":")).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(1, len(raw) - 1))
        new = data.draw(st.sampled_from([b"0", b"1", b"8", b'"', b",", b" ", b"}", b"\\", b"F", b"b", b"\xc3", b""]))
        raw[place : place + data.draw(st.integers(0, 1))] = new
    raw = bytes(raw)
    layout = usual_layout(raw)
    if layout is None:
        return
    file = tmp_path_factory.mktemp("header") / "f"
    file.write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(layout.size - 8 - len(raw)))
    quick = read_header(file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(thorough, "usual_layout", lambda raw: None)
        slow = read_header(file)
    assert [(t.name, t.dtype, t.shape, t.start, t.stop) for t in quick.tensors.values()] == [
        (t.name, t.dtype, t.shape, t.start, t.stop) for t in slow.tensors.values()
    ]
    assert quick.metadata == slow.metadata


def test_a_file_of_another_length_is_refused(tmp_path, write_raw):
    for nbytes, what in ((19, "is truncated"), (21, "after its last tensor")):
        with pytest.raises(CheckpointError, match=what):
            read_header(write_raw(tmp_path / "f", USUAL, bytes(nbytes)))
