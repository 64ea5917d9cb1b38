import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rlmerge.checkpoint.formats.mesh import Mesh
from rlmerge.checkpoint.formats.placements import Box, boxes
from rlmerge.checkpoint.formats.records import Record
from rlmerge.errors import CheckpointError


def shard(dim):
    return Record("Shard", (), {"dim": dim})


def strided(dim, factor):
    return Record("_StridedShard", (), {"dim": dim, "split_factor": factor})


replicate = Record("Replicate", (), {})


def held(shape, placements, lengths, coordinate, order=None):
    """The indices that a process holds, in the order in which its local tensor has them."""
    whole = np.arange(math.prod(shape)).reshape(shape)
    found = boxes(shape, placements, order, Mesh(lengths, coordinate), "w")
    local = np.full([max((b.start[i] + b.shape[i] for b in found), default=0) for i in range(len(shape))], -1)
    for box in found:
        target = tuple(slice(s, s + n) for s, n in zip(box.start, box.shape, strict=True))
        local[target] = whole[tuple(slice(a, a + n) for a, n in zip(box.at, box.shape, strict=True))]
    return local


def rows(*args, **kwargs):
    """Indices of the rows of a two-dimensional tensor that a process holds whole."""
    found = held(*args, **kwargs)
    return (found[:, 0] // args[0][1]).tolist() if found.size else []


def test_chunks_are_those_of_torch():
    """9 rows over 4 processes: 3, 3, 3, none."""
    assert [rows((9, 2), [shard(0)], (4,), (i,)) for i in range(4)] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], []]
    assert boxes((9, 2), [shard(0)], None, Mesh((4,), (1,)), "w") == [Box((3, 0), (0, 0), (3, 2))]
    assert boxes((2, 9), [shard(1)], None, Mesh((4,), (1,)), "w") == [Box((0, 3), (0, 0), (2, 3))]
    assert boxes((2, 9), [shard(-1)], None, Mesh((4,), (1,)), "w") == [Box((0, 3), (0, 0), (2, 3))]


def test_replicas_hold_everything():
    assert boxes((9, 2), [replicate], None, Mesh((4,), (3,)), "w") == [Box((0, 0), (0, 0), (9, 2))]
    assert boxes((), [replicate], None, Mesh((4,), (3,)), "w") == [Box((), (), ())]
    assert rows((8, 1), [replicate, shard(0)], (2, 2), (1, 1)) == [4, 5, 6, 7]


def test_two_dimensions_of_the_mesh_cut_one_of_the_tensor():
    """8 rows, mesh 2 × 2: the first dimension cuts first."""
    order = [rows((8, 1), [shard(0), shard(0)], (2, 2), at) for at in itertools.product(range(2), repeat=2)]
    assert order == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_fsdp_cuts_what_tensor_parallelism_has_cut():
    """The same mesh as (FSDP, tensor parallel): tensor parallelism cuts first, FSDP each of its parts."""
    order = [rows((8, 1), [strided(0, 2), shard(0)], (2, 2), at) for at in itertools.product(range(2), repeat=2)]
    assert order == [[0, 1], [4, 5], [2, 3], [6, 7]]


def test_uneven_parts_of_tensor_parallelism():
    """9 rows are 5 and 4 under tensor parallelism; FSDP over 4 cuts 5 as 2 2 1 0 and 4 as 1 1 1 1."""
    placements = [strided(0, 2), shard(0)]
    assert [rows((9, 1), placements, (4, 2), (i, 0)) for i in range(4)] == [[0, 1], [2, 3], [4], []]
    assert [rows((9, 1), placements, (4, 2), (i, 1)) for i in range(4)] == [[5], [6], [7], [8]]


def test_a_strided_shard_by_itself():
    """9 rows in 2 sections, of each of which every process of 4 holds a part."""
    parts = [rows((9, 1), [strided(0, 2)], (4,), (i,)) for i in range(4)]
    assert parts == [[0, 1, 5], [2, 3, 6], [4, 7], [8]]
    assert len(boxes((9, 1), [strided(0, 2)], None, Mesh((4,), (0,)), "w")) == 2


def test_a_recorded_order():
    """An explicit order of mesh dimensions: the second one cuts first."""
    entry = Record("ShardOrderEntry", (0, (1, 0)))
    order = [
        rows((8, 1), [shard(0), shard(0)], (2, 2), at, order=(entry,)) for at in itertools.product(range(2), repeat=2)
    ]
    assert order == [[0, 1], [4, 5], [2, 3], [6, 7]]


@pytest.mark.parametrize(
    ("placements", "message"),
    [
        ([Record("Partial", (), {"reduce_op": "sum"})], "has the placement Partial, which holds no values"),
        ([Record("Elsewhere")], "has the placement Elsewhere"),
        (["Shard"], "has the placement None"),
        ([shard(2)], "do not fit its shape"),
        ([shard(-3)], "do not fit its shape"),
        ([shard("0")], "has the placement Shard"),
        ([strided(0, 0)], "do not fit its shape"),
        ([strided(0, 10**9)], "do not fit its shape"),
        ([strided(0, None)], "has the placement _StridedShard"),
        ([shard(0), shard(0)], "do not fit its device mesh"),
        (None, "do not fit its device mesh"),
    ],
)
def test_placements_that_are_none(placements, message):
    with pytest.raises(CheckpointError, match=message):
        boxes((4, 4), placements, None, Mesh((2,), (0,)), "w")


@pytest.mark.parametrize(
    "placements",
    [
        [strided(0, 1024), strided(1, 1024)],
        [strided(0, 1000), strided(1, 2)],
    ],
)
def test_parts_without_end(placements):
    with pytest.raises(CheckpointError, match="too many parts"):
        boxes((10**7, 10**7), placements, None, Mesh((3, 3), (1, 1)), "w")


@st.composite
def distributed(draw):
    """A shape, a mesh, and placements on it: each replicated, a shard, or a strided one."""
    shape = tuple(draw(st.lists(st.integers(1, 11), min_size=1, max_size=2)))
    lengths = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=3)))
    dims = st.integers(0, len(shape) - 1)
    one = st.just(replicate) | dims.map(shard) | st.tuples(dims, st.integers(2, 3)).map(lambda pair: strided(*pair))
    return shape, lengths, draw(st.lists(one, min_size=len(lengths), max_size=len(lengths)))


@given(distributed())
def test_all_processes_together_hold_the_tensor(case):
    shape, lengths, placements = case
    seen = [held(shape, placements, lengths, at) for at in itertools.product(*map(range, lengths))]
    every = np.concatenate([local.reshape(-1) for local in seen])
    assert set(every.tolist()) == set(range(math.prod(shape)))
    copies = math.prod(n for n, p in zip(lengths, placements, strict=True) if p is replicate)
    assert len(every) == copies * math.prod(shape)


@settings(max_examples=40)  # torch takes about 0.1 s for one.
@given(distributed(), st.data())
def test_like_torch_cuts(case, data):
    """Against the splits of torch's own placements, one mesh dimension after the other.

    Where a strided shard stands for a cut made after those that follow it, torch says the same of even parts only.
    """
    torch = pytest.importorskip("torch")
    from torch.distributed.tensor import placement_types as of_torch

    shape, lengths, placements = case
    for k, placement in enumerate(placements):
        if placement.kind == "_StridedShard":
            rest = zip(lengths[k + 1 :], placements[k + 1 :], strict=True)
            after = [n for n, p in rest if p is not replicate and p.state["dim"] == placement.state["dim"]]
            assume(math.prod(after) != placement.state["split_factor"])
    at = tuple(data.draw(st.integers(0, n - 1)) for n in lengths)
    local = torch.arange(math.prod(shape)).reshape(shape)
    for placement, length, index in zip(placements, lengths, at, strict=True):
        if placement is replicate:
            continue
        dim = placement.state["dim"]
        if placement.kind == "Shard":
            theirs = of_torch.Shard(dim)
        else:
            theirs = of_torch._StridedShard(dim, split_factor=placement.state["split_factor"])
        local = theirs._split_tensor(local, length, with_padding=False)[0][index]
    ours = held(shape, placements, lengths, at)
    assert ours.reshape(-1).tolist() == local.reshape(-1).tolist()
