"""The layout of a delta's file: what holds which tensor, and its metadata as strings and back."""

import pytest

from rlmerge.checkpoint.formats.delta_file import BLOCK, DENSE, SAME, SPARSE, Contents, Entry, read_contents
from rlmerge.errors import CheckpointError


def test_the_parts_of_a_tensor():
    """130 elements take 3 words of 8 bytes; a tensor of one element more than a block has two counts."""
    parts = Entry("BF16", (10, 13), SPARSE, 7, "a", "b").parts("w")
    assert [(part.name, part.dtype.code, part.shape) for part in parts] == [
        ("bitmap/w", "U8", (24,)),
        ("counts/w", "U32", (1,)),
        ("values/w", "BF16", (7,)),
    ]
    assert Entry("F32", (BLOCK + 1,), SPARSE, 7, "a", "b").parts("w")[1].shape == (2,)
    (whole,) = Entry("F32", (2, 3), DENSE, 6, None, "b").parts("w")
    assert (whole.name, whole.dtype.code, whole.shape) == ("dense/w", "F32", (2, 3))
    assert Entry("F32", (2, 3), SAME, 0, "a", "a").parts("w") == ()


@pytest.mark.parametrize("base_model", [None, "org/name@abc"])
def test_the_metadata_and_back(base_model):
    tensors = {"b/é": Entry("BF16", (), DENSE, 1, None, "0f"), "a": Entry("F32", (2,), SAME, 0, "1", "1")}
    contents = Contents("f" * 32, base_model, tensors)
    metadata = contents.metadata()
    assert all(isinstance(value, str) for value in metadata.values())
    assert read_contents(metadata, "f") == contents
    assert list(read_contents(metadata, "f").tensors) == ["b/é", "a"]


def test_a_sparse_tensor_needs_a_base():
    metadata = Contents("f", None, {"a": Entry("F32", (2,), SPARSE, 1, None, "1")}).metadata()
    with pytest.raises(CheckpointError, match="f: a: its entry in the metadata is malformed"):
        read_contents(metadata, "f")
