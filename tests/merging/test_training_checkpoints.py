"""What training leaves merges like the same weights in safetensors: a `model:` names it, and no byte differs."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import rlmerge
from support.models import write_model

FIXTURES = Path(__file__).parents[1] / "fixtures" / "formats"
WIDE = ["fsdp1", "fsdp1-sharded-tensor", "fsdp2", "fsdp2-tp", "hsdp", "dcp-app", "zero2", "zero3"]
NARROW = ["dcp-model", "dcp-safetensors"]


def merge(folder, expert, dtype):
    """The bytes of a merge of one expert into the base of that type."""
    recipe = {
        "merge_method": "ties",
        "base_model": str(folder / f"base-{dtype}"),
        "models": [{"model": str(expert), "parameters": {"density": 0.5}}],
    }
    out = folder / "out" / f"{len(list(folder.glob('out/*')))}"
    rlmerge.merge(recipe, out)
    return (out / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Bases, and what the model of the fixtures merges to as safetensors, in two types."""
    folder = tmp_path_factory.mktemp("models")
    told = json.loads((FIXTURES / "reference.json").read_text())
    expert = {name: (1000 * k + np.arange(np.prod(s), dtype="<f4")).reshape(s) for name, (k, s) in told.items()}
    expert["model.scale"] = np.array([5, 6], "<f4")
    rng = np.random.default_rng(3)
    base = {name: value + rng.standard_normal(value.shape).astype("<f4") for name, value in expert.items()}
    rounded = {name: value.astype(ml_dtypes.bfloat16).astype("<f4") for name, value in expert.items()}
    for dtype, values in (("float32", expert), ("bfloat16", rounded)):
        write_model(folder / dtype, values, dtype)
        write_model(folder / f"base-{dtype}", base, dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        for dtype in ("float32", "bfloat16"):
            (folder / f"{dtype}.merged").write_bytes(merge(folder, folder / dtype, dtype))
        yield folder


@pytest.mark.parametrize(("form", "dtype"), [*((x, "float32") for x in WIDE), *((x, "bfloat16") for x in NARROW)])
def test_the_merge_is_that_of_the_same_weights(folder, form, dtype):
    assert merge(folder, FIXTURES / form, dtype) == (folder / f"{dtype}.merged").read_bytes()
