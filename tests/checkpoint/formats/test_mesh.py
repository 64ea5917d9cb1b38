import numpy as np
import pytest

from rlmerge.checkpoint.files import InputFile
from rlmerge.checkpoint.formats.mesh import Mesh, read_mesh
from rlmerge.checkpoint.formats.torch_archive import Archive
from rlmerge.checkpoint.formats.torch_values import load
from rlmerge.errors import CheckpointError
from support.torchfiles import Obj, Tensor, mesh, save

LAYOUT = "torch.distributed._mesh_layout"
FLOATS = Tensor(np.zeros(2, "<f4"))


@pytest.fixture
def seen(tmp_path):
    """What process ``rank`` of ``world`` makes of a recorded mesh."""

    def see(value, rank, world):
        saved = load(Archive(InputFile(save(tmp_path / "f", value))))
        return read_mesh(saved.value, rank, world, saved)

    return see


def layout(*axes, ranks, **state):
    """A mesh of torch >= 2.10: for each dimension lengths and steps over the list of ranks."""
    flat = [Obj(LAYOUT, "_FlatLayout", state={"shape": lengths, "stride": steps}) for lengths, steps in axes]
    state = {"_layout": Obj(LAYOUT, "_MeshLayout", state={"axes": tuple(flat)}), **state}
    ranks = {"_flatten_rank_map": tuple(ranks)} if isinstance(ranks, range) else {"_rank_map": Tensor(ranks)}
    return Obj("torch.distributed.device_mesh", "DeviceMesh", state=state | ranks)


def test_a_tensor_of_ranks(seen):
    """Ranks 0 1 2 in the first row, 3 4 5 in the second: rank 5 is last in both dimensions."""
    grid = [[0, 1, 2], [3, 4, 5]]
    assert seen(mesh(grid, 5), 5, 6) == Mesh((2, 3), (1, 2))
    assert seen(mesh(grid, 1), 1, 6) == Mesh((2, 3), (0, 1))
    assert seen(mesh([4, 2, 0], 2), 2, 6) == Mesh((3,), (1,))


def test_layouts_over_a_list_of_ranks(seen):
    """4 processes as 2 × 2: process 2 is at (1, 0); of the sub-meshes along one dimension it is at 1 and at 0."""
    both = ((2,), (2,)), ((2,), (1,))
    assert seen(layout(*both, ranks=range(4)), 2, 4) == Mesh((2, 2), (1, 0))
    assert seen(layout(both[0], ranks=range(4)), 2, 4) == Mesh((2,), (1,))
    assert seen(layout(both[1], ranks=range(4)), 2, 4) == Mesh((2,), (0,))
    # A dimension of length 1, and one that joins two that are not adjacent: 0 and 2 of 2 × 3 × 2.
    assert seen(layout(((), ()), ((4,), (1,)), ranks=range(4)), 3, 4) == Mesh((1, 4), (0, 3))
    assert seen(layout(((2, 2), (6, 1)), ((3,), (2,)), ranks=range(12)), 9, 12) == Mesh((4, 3), (3, 1))


def test_ranks_in_another_order(seen):
    shuffled = np.array([3, 1, 0, 2], "<i4")
    assert seen(layout(((2,), (2,)), ((2,), (1,)), ranks=shuffled), 0, 4) == Mesh((2, 2), (1, 0))


def test_layouts_of_torch_2_9(seen):
    for lengths, steps in (((2, 2), (2, 1)), ((2, (2,)), (2, (1,)))):
        state = {"_layout": Obj(LAYOUT, "_MeshLayout", state={"shape": lengths, "stride": steps})}
        state |= {"_rank_map": Tensor(np.arange(4, dtype="<i4"))}
        value = Obj("torch.distributed.device_mesh", "DeviceMesh", state=state)
        assert seen(value, 3, 4) == Mesh((2, 2), (1, 1))
    one = Obj(LAYOUT, "_MeshLayout", state={"shape": 4, "stride": 1})
    value = Obj(
        "torch.distributed.device_mesh", "DeviceMesh", state={"_layout": one, "_flatten_rank_map": (0, 1, 2, 3)}
    )
    assert seen(value, 3, 4) == Mesh((4,), (3,))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (mesh([0, 1], 0), r"was written at \(0,\) of its mesh, where rank 1 is at \(1,\)"),
        (mesh([0, 1], 1, _rank=0), "was written by rank 0, not 1"),
        (mesh([0, 1], 1, _root_mesh=mesh([0, 1], 1, _rank=0)), "was written by rank 0, not 1"),
        (mesh([0, 2]), "a mesh of the ranks 0, 2; 2 rank files are here, and this is 1"),
        (mesh([0, 1, 2, 3], 1), "a mesh of the ranks 0, 1, 2, 3; 2 rank files"),
        (mesh([1, 1]), "a mesh of the ranks 1, 1"),
        (mesh([[0], [2]]), "a mesh of the ranks 0, 2"),
        (layout(((4,), (1,)), ranks=range(2)), "device mesh of an unknown form"),
        (layout(((2,), (0,)), ranks=range(2)), "device mesh of an unknown form"),
        (layout(((2,), (1, 1)), ranks=range(2)), "device mesh of an unknown form"),
        (Obj("torch.distributed.device_mesh", "DeviceMesh", state={}), "device mesh of an unknown form"),
        (Obj("torch.distributed.device_mesh", "DeviceMesh", state={"mesh": FLOATS}), "unknown form"),
        (Obj("torch", "device", ("cpu",), called=True), "a tensor without a device mesh"),
        (7, "a tensor without a device mesh"),
    ],
)  # fmt: skip
def test_meshes_that_do_not_fit(seen, value, message):
    with pytest.raises(CheckpointError, match=message):
        seen(value, 1, 2)
