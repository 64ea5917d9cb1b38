import numpy as np
import pytest

from rlmerge.checkpoint import ArraySource, verify
from rlmerge.errors import RunError
from rlmerge.kernels.dtypes import BFLOAT16, FLOAT16, FLOAT32
from rlmerge.merging import composed
from rlmerge.merging.composed import write_composed
from rlmerge.progress import Quiet
from support.models import read_model


def write(out, arrays, **options):
    tensors = {name: ArraySource(name, FLOAT32, np.asarray(x, np.float32), "model") for name, x in arrays.items()}
    settings = {"shard_size": 10**6, "force": False, "progress": Quiet()} | options
    return write_composed(tensors, {"note.txt": b"hi"}, out, "test", **settings)


def test_tiles_types_and_files(tmp_path, monkeypatch):
    monkeypatch.setattr(composed, "_TILE", 3)
    values = np.arange(10.0).reshape(2, 5)
    size = write(tmp_path / "out", {"a": values, "b": values}, dtypes={"b": BFLOAT16})
    found = read_model(tmp_path / "out")
    assert (found["a"].dtype.name, found["b"].dtype.name) == ("float32", "bfloat16")
    assert all(x.astype(float).tolist() == values.tolist() for x in found.values())
    assert (tmp_path / "out" / "note.txt").read_bytes() == b"hi"
    assert size == (tmp_path / "out" / "model.safetensors").stat().st_size
    assert verify(tmp_path / "out").ok


def test_too_large_for_float16_leaves_nothing(tmp_path):
    with pytest.raises(RunError, match="a value of a is too large for float16"):
        write(tmp_path / "out", {"a": [1.0, 70000.0]}, dtypes={"a": FLOAT16})
    assert list(tmp_path.iterdir()) == []


def test_infinities_stay(tmp_path):
    write(tmp_path / "out", {"a": [np.inf, np.nan]}, dtypes={"a": FLOAT16})
    assert str(read_model(tmp_path / "out")["a"].tolist()) == "[inf, nan]"
