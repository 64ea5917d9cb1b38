import numpy as np
import pytest

from rlmerge.checkpoint.files import InputFile
from rlmerge.checkpoint.formats.records import Record, sizes
from rlmerge.checkpoint.formats.torch_archive import Archive
from rlmerge.checkpoint.formats.torch_values import Dense, load, read_pickle
from rlmerge.errors import CheckpointError
from rlmerge.kernels.dtypes import BY_NAME
from support.torchfiles import Obj, Tensor, pickled, save


def loaded(path):
    return load(Archive(InputFile(path)))


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def bits(tensor, torch):
    size = tensor.element_size()
    view = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[size]
    return tensor.contiguous().view(view).numpy().tobytes()


def test_every_type_keeps_its_bits(tmp_path, torch):
    names = [name for name in BY_NAME if hasattr(torch, name) and name != "float8_e8m0fnu"]
    assert {"bfloat16", "float8_e4m3fn", "uint16", "bool"} <= set(names)
    tensors = {name: torch.arange(6).reshape(2, 3).to(getattr(torch, name)) for name in names}
    torch.save(tensors, tmp_path / "f")
    saved = loaded(tmp_path / "f")
    for name in names:
        source = saved.source(name, saved.value[name])
        assert (source.dtype.name, source.shape) == (name, (2, 3))
        assert source.read().tobytes() == bits(tensors[name], torch)


def test_views_of_a_storage(tmp_path, torch):
    whole = torch.arange(60, dtype=torch.float32).reshape(5, 12)
    tensors = {
        "whole": whole,
        "transposed": whole.T,
        "rows": whole[1:3],
        "columns": whole[:, 2:7],
        "every other": whole[::2, ::3],
        "one": whole[2, 3],
        "none": whole[:0],
        "parameter": torch.nn.Parameter(whole[1]),
        "buffer": torch.nn.Buffer(whole[2]) if hasattr(torch.nn, "Buffer") else whole[2],
    }
    torch.save(tensors, tmp_path / "f")
    saved = loaded(tmp_path / "f")
    for name, tensor in tensors.items():
        source = saved.source(name, saved.value[name])
        expected = tensor.detach().contiguous().numpy().reshape(-1)
        assert source.shape == tuple(tensor.shape)
        for start in range(0, len(expected) + 1, 4):
            np.testing.assert_array_equal(source.read(start, len(expected)), expected[start:])
    rows = saved.source("rows", saved.value["rows"]).read()
    assert not rows.flags.owndata


def test_a_state_dict_with_metadata(tmp_path, torch):
    torch.save(torch.nn.Linear(2, 3).state_dict(), tmp_path / "f")
    saved = loaded(tmp_path / "f")
    assert list(saved.value) == ["weight", "bias"]
    assert all(isinstance(value, Dense) for value in saved.value.values())


def test_other_objects_are_records(tmp_path):
    value = Obj(
        "argparse", "Namespace", state={"lr": 0.1, "path": Obj("pathlib", "PosixPath", ("/", "x"), called=True)}
    )
    found = loaded(save(tmp_path / "f", value)).value
    assert isinstance(found, Record) and found.kind == "Namespace"
    assert found.state["path"].args == ("/", "x")


def test_calls_are_not_made(tmp_path):
    """getattr, by which enum members are saved, gives a record, and so does whatever is made of that."""
    system = Obj("builtins", "getattr", (Obj("torch", "Tensor", bare=True), "__class__"), called=True)
    found = loaded(save(tmp_path / "f", {"x": system})).value["x"]
    assert (found.kind, found.args[1]) == ("member", "__class__")


@pytest.mark.parametrize(
    "name", ["os.system", "posix.system", "builtins.eval", "builtins.exec", "torch.load", "torch.hub.load",
             "torch.storage._load_from_bytes", "torch._utils._rebuild_device_tensor_from_numpy", "functools.partial",
             "torch.distributed.rpc.RRef", "numpy.load", "subprocess.Popen", "torch._inductor.codecache.load"]
)  # fmt: skip
def test_names_that_are_not_known(name):
    module, _, attribute = name.rpartition(".")
    with pytest.raises(CheckpointError, match=f"names '{name}', which no checkpoint needs"):
        read_pickle(pickled(Obj(module, attribute, ("touch x",), called=True)), "f")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"offset": 1}, "reaches beyond its storage"),
        ({"shape": (7,)}, "reaches beyond its storage"),
        ({"shape": (1 << 61,)}, "reaches beyond its storage"),
        ({"shape": (2, 3), "stride": (4, 1)}, "must lie inside its storage"),
        ({"shape": (2, 3), "stride": (0, 1)}, "steps of a tensor must be positive"),
        ({"offset": -1}, "a tensor is malformed"),
        ({"shape": (-6,)}, "are not whole numbers"),
        ({"shape": (2.0, 3)}, "are not whole numbers"),
        ({"shape": (True, 6)}, "are not whole numbers"),
        ({"shape": (1 << 63,)}, "are not whole numbers"),
        ({"shape": (1,) * 20 + (6,)}, "are not whole numbers"),
        ({"shape": (2, 3), "stride": (1,)}, "a tensor is malformed"),
        ({"storage": "Size"}, "something that is no storage"),
        ({"storage": "UntypedStorage"}, "names 'torch.UntypedStorage'"),
    ],
)
def test_tensors_that_are_not_sound(tmp_path, changes, message):
    path = save(tmp_path / "f", {"w": Tensor(np.arange(6, dtype="<f4"), **changes)})
    with pytest.raises(CheckpointError, match=message):
        saved = loaded(path)
        saved.source("w", saved.value["w"])


def test_a_storage_that_is_shorter_than_it_says(tmp_path):
    short = save(tmp_path / "g", {"w": Tensor(np.arange(6, dtype="<f4"), storage="DoubleStorage")})
    saved = loaded(short)
    with pytest.raises(CheckpointError, match=f"{short}: w: reaches beyond its storage"):
        saved.source("w", saved.value["w"])


@pytest.mark.parametrize(
    "call",
    [
        Obj("torch._utils", "_rebuild_tensor_v2", (1, 2), called=True),
        Obj("torch._utils", "_rebuild_tensor_v2", (None, 0, (1,), (1,)), called=True),
        Obj("torch._utils", "_rebuild_tensor_v3", (None, 0, (1,), (1,)), called=True),
        Obj("torch._tensor", "_rebuild_from_type_v2", (1, 2, 3, 4), called=True),
        Obj("torch._tensor", "_rebuild_from_type_v2", (), called=True),
        Obj("torch", "Size", called=True),
        Obj("torch", "Size", (("a",),), called=True),
    ],
)
def test_calls_with_other_arguments(call):
    with pytest.raises(CheckpointError, match="a tensor"):
        read_pickle(pickled(call), "f")


def test_the_order_of_bytes(tmp_path):
    value = {"w": Tensor(np.arange(6, dtype="<f4"))}
    assert loaded(save(tmp_path / "f", value, byteorder=b"little")).value
    with pytest.raises(CheckpointError, match="big-endian"):
        loaded(save(tmp_path / "f", value, byteorder=b"big"))


def test_sizes():
    assert sizes([1, 0]) == (1, 0)
    assert sizes(()) == ()
    for wrong in (None, 3, [-1], [True], ["1"], [1 << 62], (1.0,), (1,) * 17):
        assert sizes(wrong) is None
