"""The committed checkpoints of tests/fixtures/formats, what they hold, and copies of them to damage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from rlmerge.checkpoint import open_checkpoint
from rlmerge.kernels.dtypes import BFLOAT16

FIXTURES = Path(__file__).parents[2] / "fixtures" / "formats"


@pytest.fixture
def fixtures():
    return FIXTURES


@pytest.fixture
def reference():
    """Tensor name → float32 values of the model that every checkpoint there holds."""
    told = json.loads((FIXTURES / "reference.json").read_text())
    tensors = {
        name: (1000 * k + np.arange(np.prod(shape), dtype="<f4")).reshape(shape) for name, (k, shape) in told.items()
    }
    return tensors | {"model.scale": np.array([5, 6], "<f4")}


@pytest.fixture
def copied(tmp_path):
    """Copy a checkpoint to a place where it may be changed."""

    def copy(name: str, to: str = "copy") -> Path:
        return Path(shutil.copytree(FIXTURES / name, tmp_path / to))

    return copy


@pytest.fixture
def holds(reference):
    """Open a directory, compare every tensor, whole and in odd ranges, and return the checkpoint."""

    def check(root: Path, *, without: set[str] = frozenset()):
        model = open_checkpoint(root)
        assert set(model.tensors) == set(reference) - without
        for name, source in model.tensors.items():
            expected = reference[name]
            flat = expected.reshape(-1)
            if source.dtype is BFLOAT16:
                flat = flat.astype(ml_dtypes.bfloat16).view(np.uint16)
            assert source.name == name
            assert source.shape == expected.shape
            np.testing.assert_array_equal(source.read(), flat)
            for start in range(0, source.numel, 5):
                stop = min(start + 7, source.numel)
                np.testing.assert_array_equal(source.read(start, stop), flat[start:stop])
        return model

    return check
