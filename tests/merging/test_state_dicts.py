"""Merging state dicts: NumPy in, NumPy out; torch in, torch out; the bits of a merge of files."""

import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

from rlmerge import merge_state_dicts
from rlmerge.errors import RequestError
from support.family import draw, merge, recipe
from support.models import read_model, stored, write_model

SHAPES = {"model.embed_tokens.weight": (300, 250), "model.norm.weight": (70,), "scale": (), "none": (0, 3)}
METHODS = [
    ("linear", {"weight": [1.0, 2.0, 3.0]}),
    ("task_arithmetic", {"lambda": 0.4}),
    ("ties", {"density": [0.1, 0.3, 1.0]}),
    ("ties", {"density": 0.2, "scope": "global"}),
    ("dare_ties", {"density": 0.4}),
    ("dare_linear", {"density": 0.4, "rescale": "l1"}),
    ("ram_plus", {}),
    ("ram_percentile", {"percentile": 70}),
    ("slerp", {"t": 0.3}),
    ("nuslerp", {"nuslerp_flatten": False}),
]
IDS = ["-".join([name, *parameters]) for name, parameters in METHODS]
COUNTS = {"slerp": 1, "nuslerp": 2}
pytestmark = pytest.mark.filterwarnings("ignore:.*averages only the listed models")


def states(dtype, count=3):
    """A base and experts as NumPy arrays stored in ``dtype``, with an integer tensor."""
    models = draw(11, count, SHAPES)
    models = [models[0], *models[1]]
    return [{name: stored(w, dtype) for name, w in model.items()} | {"steps": np.arange(5)} for model in models]


def from_files(folder, models, dtype, name, parameters, **options):
    for label, model in zip(("base", "e0", "e1", "e2"), models, strict=False):
        write_model(folder / label, model, dtype)
    merge(recipe(folder, name, len(models) - 1, **parameters), folder / "out", cache=False, **options)
    return read_model(folder / "out")


def same_bits(found, expected):
    assert list(found) == list(expected) or set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        assert found[name].shape == array.shape, name
        assert np.asarray(found[name]).tobytes() == array.tobytes(), name


@pytest.mark.parametrize(("name", "parameters"), METHODS, ids=IDS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_arrays_merge_like_files(tmp_path, dtype, name, parameters):
    models = states(dtype, COUNTS.get(name, 3))
    expected = from_files(tmp_path, models, dtype, name, parameters, seed=3)
    same_bits(merge_state_dicts(models[0], models[1:], name, seed=3, **parameters), expected)


@pytest.mark.parametrize(("name", "parameters"), METHODS, ids=IDS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_torch_merges_like_numpy(dtype, name, parameters, monkeypatch):
    """Tensors on the CPU through the kernels, and through the formulas on torch that other devices run."""
    torch = pytest.importorskip("torch")
    models = states(dtype, COUNTS.get(name, 3))
    expected = merge_state_dicts(models[0], models[1:], name, seed=3, **parameters)
    tensors = [{key: to_torch(torch, array) for key, array in model.items()} for model in models]
    same_bits(to_numpy(torch, merge_state_dicts(tensors[0], tensors[1:], name, seed=3, **parameters)), expected)
    force_device(monkeypatch)
    same_bits(to_numpy(torch, merge_state_dicts(tensors[0], tensors[1:], name, seed=3, **parameters)), expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("on_device", [False, True])
def test_stochastic_rounding_on_torch(dtype, on_device, monkeypatch):
    torch = pytest.importorskip("torch")
    models = states(dtype)
    options = {"seed": 9, "rounding": "stochastic", "lambda": 0.3}
    expected = merge_state_dicts(models[0], models[1:], "task_arithmetic", **options)
    tensors = [{key: to_torch(torch, array) for key, array in model.items()} for model in models]
    if on_device:
        force_device(monkeypatch)
    same_bits(to_numpy(torch, merge_state_dicts(tensors[0], tensors[1:], "task_arithmetic", **options)), expected)


def force_device(monkeypatch):
    """Send CPU tensors down the path of other devices."""
    from rlmerge.merging.on_torch import TorchBackend

    monkeypatch.setattr("rlmerge.merging.state_dicts._device_backend", lambda states: TorchBackend("cpu"))


def to_torch(torch, array):
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def to_numpy(torch, state):
    return {
        name: x.view(torch.int16).numpy().view(ml_dtypes.bfloat16) if x.dtype == torch.bfloat16 else x.numpy()
        for name, x in state.items()
    }


def test_a_small_merge_by_hand():
    base = {"w": np.array([1.0, 2.0, 3.0], np.float32)}
    experts = [{"w": np.array([2.0, 2.0, 3.0], np.float32)}, {"w": np.array([1.0, 2.0, 7.0], np.float32)}]
    merged = merge_state_dicts(base, experts, "task_arithmetic", lam=0.5)
    assert merged["w"].tolist() == [1.5, 2.0, 5.0]
    assert merged["w"].dtype == np.float32
    assert base["w"].tolist() == [1.0, 2.0, 3.0]
    assert merge_state_dicts(None, experts, "linear", weight=[1, 3])["w"].tolist() == [1.25, 2.0, 6.0]


def test_views_and_strides_are_taken_as_they_look():
    w = np.arange(12, dtype=np.float32).reshape(3, 4)
    merged = merge_state_dicts({"w": w.T[::2]}, [{"w": 2 * w.T[::2]}])
    assert merged["w"].tolist() == (2 * w.T[::2]).tolist()


def test_the_output_owns_its_memory():
    steps, w = np.arange(3), np.ones(3, np.float32)
    merged = merge_state_dicts({"w": w, "steps": steps}, [{"w": w, "steps": steps}])
    merged["steps"][0] = 9
    merged["w"][0] = 9
    assert (steps[0], w[0]) == (0, 1)


def test_another_output_type():
    base = {"w": stored(np.ones(3), "bfloat16")}
    assert merge_state_dicts(base, [base], out_dtype="float32")["w"].dtype == np.float32
    single = {"w": np.ones(3, np.float32)}
    assert merge_state_dicts(single, [single], out_dtype="float16")["w"].dtype == np.float16
    with pytest.raises(RequestError, match="NumPy has no bfloat16\n  Set out_dtype='float32'"):
        merge_state_dicts(single, [single], out_dtype="bfloat16")


ONES = {"w": np.ones((2, 3), np.float32)}


@pytest.mark.parametrize(
    ("base", "expert", "arguments", "message"),
    [
        (ONES, {"w": np.ones((3, 2), np.float32)}, {}, r"w: shape \[3, 2\] differs from \[2, 3\]"),
        (ONES, {"v": ONES["w"]}, {}, "holds only 0% of the parameters of state dict 0; 1 tensor"),
        (ONES, {"w": np.full((2, 3), np.nan, np.float32)}, {}, "w: 6 values are not finite; the first is nan"),
        (ONES, {"w": np.ones((2, 3), complex)}, {}, "w: arrays of complex128 cannot be merged or copied"),
        ({"w": np.arange(3)}, {"w": np.arange(1, 4)}, {}, "w: differs from state dict 0: w; int64 tensors are copied"),
        (ONES, ONES, {"method": "tise"}, "Did you mean 'ties'"),
        (ONES, ONES, {"densty": 0.5}, "densty"),
        (ONES, ONES, {"method": "ties", "density": -0.5}, "at least 0"),
        (ONES, ONES, {"method": "ties", "density": [0.5, 0.5]}, "'density' has 2 values for 1 experts"),
        (ONES, ONES, {"rounding": "up"}, "rounding cannot be 'up'"),
        (ONES, ONES, {"out_dtype": "int8"}, "'int8' is not a type to merge in"),
        ({"w": np.full(3, 6e4, np.float16)}, {"w": -np.full(3, 6e4, np.float16)}, {"lam": -1}, "overflows float16"),
    ],
)
def test_what_cannot_be_merged(base, expert, arguments, message):
    with pytest.raises(RequestError, match=message):
        merge_state_dicts(base, [expert], **arguments)


@pytest.mark.parametrize(
    ("expert", "message"),
    [
        (np.full((2, 3), np.nan, np.float32), "w: 6 values are not finite"),
        (np.ones((3, 2), np.float32), "shape"),
    ],
)
def test_what_cannot_be_merged_on_a_device(expert, message, monkeypatch):
    torch = pytest.importorskip("torch")
    force_device(monkeypatch)
    with pytest.raises(RequestError, match=message):
        merge_state_dicts({"w": torch.ones(2, 3)}, [{"w": torch.from_numpy(expert)}])


@pytest.mark.parametrize("on_device", [False, True])
def test_what_is_not_finite_passes_or_counts_as_zero(on_device, monkeypatch):
    torch = pytest.importorskip("torch")
    if on_device:
        force_device(monkeypatch)
    base, expert = {"w": torch.ones(3)}, {"w": torch.tensor([torch.inf, 2, 3])}
    kept = merge_state_dicts(base, [expert], on_nonfinite="keep")["w"]
    assert kept.tolist() == [torch.inf, 2, 3]
    assert merge_state_dicts(base, [expert], on_nonfinite="zero")["w"].tolist() == [0, 2, 3]
    low = {"w": torch.full((3,), 6e4).half()}
    with pytest.raises(RequestError, match="overflows float16"):
        merge_state_dicts(low, [{"w": -low["w"]}], lam=-1)


def test_types_that_differ_are_widened_with_a_warning():
    with pytest.warns(UserWarning, match="as float32 and float64; merged tensors get the widest"):
        assert merge_state_dicts(ONES, [{"w": np.ones((2, 3))}])["w"].dtype == np.float64


def test_what_a_plan_warns_of_is_a_warning():
    with pytest.warns(UserWarning, match="extra.*left out"):
        merge_state_dicts(ONES, [ONES | {"extra": np.ones(2, np.float32)}])


def test_torch_keeps_gradients_and_devices_out_of_it():
    torch = pytest.importorskip("torch")
    base = {"w": torch.nn.Parameter(torch.ones(2, 3).t())}
    merged = merge_state_dicts(base, [{"w": torch.full((3, 2), 2.0)}])["w"]
    assert merged.tolist() == [[2, 2], [2, 2], [2, 2]]
    assert not merged.requires_grad


def test_state_dicts_on_several_devices_are_refused(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.Tensor, "device", property(lambda x: torch.device("cuda", int(x[0]))))
    with pytest.raises(RequestError, match="on one device, not on cuda:1 and cuda:2"):
        merge_state_dicts({"w": torch.ones(3)}, [{"w": torch.full((3,), 2.0)}])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda torch: torch.ones(3, device="meta"), "w: is on the meta device and has no values"),
        (lambda torch: torch.ones(3, 1).to_sparse(), "w: is a sparse tensor"),
        (lambda torch: torch.ones(3).to(torch.float8_e4m3fn), "w: tensors of float8_e4m3fn cannot be merged"),
        (lambda torch: torch.ones(3).to(torch.complex64), "w: tensors of complex64 cannot be merged"),
        (lambda torch: [1.0, 2.0], "expert 0: w: holds a list, not an array or tensor"),
    ],
)
def test_tensors_of_other_kinds_are_named(make, message):
    torch = pytest.importorskip("torch")
    with pytest.raises(RequestError, match=message):
        merge_state_dicts({"w": torch.ones(3)}, [{"w": make(torch)}])


def test_what_is_no_state_dict_is_named():
    for base, experts, message in (
        (ONES, ONES, "experts must be a sequence of state dicts"),
        (ONES, "ab", "expert 0: a state dict maps names to arrays; this is a str"),
        ("model", [ONES], "base: a state dict maps names to arrays; this is a str"),
        ({1: ONES["w"]}, [ONES], "a tensor's name is text, not 1"),
        (ONES, [{"w": np.array(["a"])}], "arrays of <U1 cannot be merged"),
        (ONES, [{"w": np.array([None])}], "arrays of object cannot be merged"),
    ):
        with pytest.raises(RequestError, match=message):
            merge_state_dicts(base, experts)
    for options, message in (({"memory": "2 gigs"}, "is not a size"), ({"seed": "x"}, "seed must be a whole number")):
        with pytest.raises(RequestError, match=message):
            merge_state_dicts(ONES, [ONES], **options)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_two_names_of_one_storage_are_merged_once(kind):
    torch = pytest.importorskip("torch")
    models = []
    for value in (1.0, 2.0):
        table = np.full((4, 3), value, np.float32)
        shared = table if kind == "numpy" else torch.from_numpy(table)
        models.append({"embed": shared, "head": shared, "other": shared[:2]})
    merged = merge_state_dicts(models[0], models[1:], "dare_linear", density=0.5, seed=1)
    assert merged["head"] is merged["embed"]
    assert merged["other"].shape == (2, 3)
    assert list(merged) == ["embed", "head", "other"]
    untied = [{**model, "head": model["head"] + 0} for model in models]
    apart = merge_state_dicts(untied[0], untied[1:], "dare_linear", density=0.5, seed=1)
    assert apart["head"] is not apart["embed"]


def test_numpy_merges_import_no_torch():
    code = (
        "import sys, numpy as np, rlmerge; w = {'w': np.ones(3, np.float32)}\n"
        "rlmerge.merge_state_dicts(w, [w]); print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
