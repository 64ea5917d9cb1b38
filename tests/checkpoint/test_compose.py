import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmerge.checkpoint import ArraySource, read_header
from rlmerge.checkpoint.compose import Block, Pieces, Renamed, joined, part, row, stacked
from rlmerge.checkpoint.source import Scratch
from rlmerge.errors import CheckpointError
from rlmerge.kernels.dtypes import BFLOAT16, FLOAT32


def array(values, name="x", dtype=FLOAT32):
    return ArraySource(name, dtype, np.asarray(values, dtype.storage), "memory")


def numbered(*shape):
    return np.arange(math.prod(shape), dtype="<f4").reshape(shape)


def all_ranges(source, whole):
    flat = whole.reshape(-1)
    for start in range(len(flat) + 1):
        for stop in range(start, len(flat) + 1):
            np.testing.assert_array_equal(source.read(start, stop), flat[start:stop])


def test_rows_of_two_sources():
    whole = numbered(3, 2)
    pieces = Pieces("w", (3, 2), [Block(array(whole[2:]), (2, 0)), Block(array(whole[:2]), (0, 0))])
    assert (pieces.name, pieces.dtype, pieces.shape) == ("w", FLOAT32, (3, 2))
    all_ranges(pieces, whole)


def test_columns_of_two_sources():
    whole = numbered(3, 5)
    all_ranges(Pieces("w", (3, 5), [Block(array(whole[:, :2]), (0, 0)), Block(array(whole[:, 2:]), (0, 2))]), whole)


def test_a_range_inside_one_block_is_a_view():
    top = array(numbered(2, 3))
    pieces = Pieces("w", (4, 3), [Block(top, (0, 0)), Block(array(numbered(2, 3)), (2, 0))])
    assert np.shares_memory(pieces.read(1, 6), top.read())
    assert not np.shares_memory(pieces.read(1, 7), top.read())


def test_part_of_a_source_is_placed():
    """A strided shard: rank 0 holds rows 0 and 2, rank 1 rows 1 and 3."""
    whole = numbered(4, 3)
    blocks = [
        Block(array(whole[k::2]), (2 * i + k, 0), (i, 0), (1, 3)) for k, i in itertools.product(range(2), range(2))
    ]
    all_ranges(Pieces("w", (4, 3), blocks), whole)
    blocks = [
        Block(array(whole.T[:, k::2]), (0, 2 * i + k), (0, i), (3, 1)) for k, i in itertools.product(range(2), range(2))
    ]
    all_ranges(Pieces("w", (3, 4), blocks), whole.T)


def test_joined_stacked_part_and_row_are_numpys():
    a, b = numbered(2, 3, 2), 100 + numbered(2, 3, 2)
    sources = [array(a, "a"), array(b, "b")]
    for axis in range(3):
        all_ranges(joined("j", sources, axis), np.concatenate([a, b], axis))
    all_ranges(stacked("s", sources), np.stack([a, b]))
    assert stacked("s", sources).shape == (2, 2, 3, 2)
    all_ranges(part("p", sources[0], 1, 3, axis=1), a[:, 1:3])
    all_ranges(row("r", sources[0], 1), a[1])
    assert row("r", sources[0], 1).shape == (3, 2)
    assert np.shares_memory(row("r", sources[0], 1).read(), sources[0].read())


def test_another_name_and_shape():
    source = array(numbered(2, 3))
    renamed = Renamed(source, "y", (3, 2))
    assert (renamed.name, renamed.shape, renamed.where) == ("y", (3, 2), "memory: x")
    all_ranges(renamed, numbered(2, 3))
    assert renamed.fingerprint(True) == source.fingerprint(True)
    with pytest.raises(ValueError, match=r"\[2, 3\] cannot be seen as \[4\]"):
        Renamed(source, "y", (4,))


def test_scalars_and_tensors_without_elements():
    assert Pieces("s", (), [Block(array(3.0), ())]).read().tolist() == [3.0]
    empty = Pieces("e", (0, 4), [Block(array(np.empty((0, 4))), (0, 0))])
    assert empty.read().size == 0
    assert empty.fingerprint(True) == array(np.empty((0, 4))).fingerprint(True)
    whole = numbered(2, 2)
    all_ranges(Pieces("w", (2, 2), [Block(array(whole), (0, 0)), Block(array(np.empty((0, 2))), (2, 0))]), whole)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([], "no part of the tensor"),
        ([((0, 0), (2, 2))], "only 4 of its 8 elements"),
        ([((0, 0), (3, 2)), ((2, 0), (2, 2))], "overlap"),
        ([((0, 0), (2, 2)), ((0, 0), (2, 2))], "overlap"),
        ([((0, 0), (4, 1)), ((0, 0), (2, 2))], "overlap"),
        ([((3, 0), (2, 2))], r"\[2, 2\] at \[3, 0\] is no part of w \[4, 2\]"),
        ([((-1, 0), (2, 2))], "is no part of w"),
        ([((0,), (4, 2))], "is no part of w"),
    ],
)
def test_blocks_that_are_no_tiling(blocks, message):
    with pytest.raises(CheckpointError, match=message):
        Pieces("w", (4, 2), [Block(array(np.zeros(shape)), at) for at, shape in blocks])


def test_a_hole_that_an_overlap_makes_up_for():
    """Six elements in blocks of six, one twice: counting is not enough."""
    blocks = [Block(array(np.zeros(shape)), at) for at, shape in [((0, 0), (2, 2)), ((1, 1), (1, 2))]]
    with pytest.raises(CheckpointError, match="overlap"):
        Pieces("w", (2, 3), blocks)


def test_blocks_of_two_types():
    with pytest.raises(CheckpointError, match="holds bfloat16 where memory: x holds float32"):
        Pieces("w", (2,), [Block(array([1]), (0,)), Block(array([1], dtype=BFLOAT16), (1,))])


def test_memory_that_reading_takes():
    whole = numbered(4, 4)
    assert part("p", array(whole), 1, 3).scratch == Scratch()
    assert joined("j", [array(whole), array(whole)]).scratch == Scratch(0, 4)

    class Wide(ArraySource):
        scratch = Scratch(100, 8)

    wide = Wide("x", FLOAT32, whole, "memory")
    # Of every row read from it a quarter is used, and gathered.
    assert part("p", wide, 0, 1, axis=1).scratch == Scratch(100, 4 + 4 * 8)


def test_fingerprint_is_that_of_one_piece(tmp_path, write_tensors):
    values = list(range(60_001))
    [whole] = read_header(write_tensors(tmp_path / "whole", {"x": values})).tensors.values()
    [a] = read_header(write_tensors(tmp_path / "a", {"a": values[:777]})).tensors.values()
    [b] = read_header(write_tensors(tmp_path / "b", {"b": values[777:]})).tensors.values()
    pieces = joined("x", [a, b])
    assert pieces.fingerprint(True) == whole.fingerprint(True)
    assert pieces.fingerprint(False) == whole.fingerprint(False)
    assert [file.path.name for file in pieces.files] == ["a", "b"]
    assert pieces.where == f"{tmp_path}: x"
    pieces.prefetch(700, 800)
    assert pieces.read(700, 800).tolist() == values[700:800]
    pieces.release(700, 800)


@st.composite
def tilings(draw):
    """A shape of up to four dimensions, and boxes that tile it: a box is halved again and again."""
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    boxes = [((0,) * len(shape), shape)]
    for _ in range(draw(st.integers(0, 6))):
        at, size = boxes.pop(draw(st.integers(0, len(boxes) - 1)))
        axis = draw(st.integers(0, len(shape) - 1))
        first = draw(st.integers(0, size[axis]))
        for begin, length in ((0, first), (first, size[axis] - first)):
            corner, extent = list(at), list(size)
            corner[axis] += begin
            extent[axis] = length
            boxes.append((tuple(corner), tuple(extent)))
    return shape, boxes


@given(tilings(), st.data())
def test_any_tiling_reads_like_the_whole(tiling, data):
    shape, boxes = tiling
    whole = numbered(*shape)
    blocks = []
    for at, size in boxes:
        values = whole[tuple(slice(a, a + n) for a, n in zip(at, size, strict=True))]
        margin = tuple(data.draw(st.integers(0, 2)) for _ in shape)
        padded = np.pad(values, [(m, m) for m in margin], constant_values=-1)
        blocks.append(Block(array(padded), at, margin, size))
    pieces = Pieces("w", shape, blocks)
    start = data.draw(st.integers(0, whole.size))
    stop = data.draw(st.integers(start, whole.size))
    np.testing.assert_array_equal(pieces.read(start, stop), whole.reshape(-1)[start:stop])
    assert pieces.fingerprint(True) == array(whole).fingerprint(True)


@given(tilings(), st.data())
def test_a_moved_or_doubled_box_is_never_a_tiling(tiling, data):
    shape, boxes = tiling
    boxes = [(at, size) for at, size in boxes if math.prod(size)]
    i = data.draw(st.integers(0, len(boxes) - 1))
    (at, size), axis = boxes[i], data.draw(st.integers(0, len(shape) - 1))
    other = data.draw(st.integers(0, shape[axis] - size[axis]))
    if other == at[axis]:
        boxes.append(boxes[i])
    else:
        boxes[i] = ((*at[:axis], other, *at[axis + 1 :]), size)
    with pytest.raises(CheckpointError):
        Pieces("w", shape, [Block(array(np.zeros(size)), at) for at, size in boxes])
