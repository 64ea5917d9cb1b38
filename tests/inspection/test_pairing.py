import numpy as np
import pytest

from rlmerge.checkpoint import open_checkpoint
from rlmerge.inspection.pairing import pair_up
from support.models import write_model


@pytest.fixture
def models(tmp_path):
    write_model(tmp_path / "base", {f"w{k}": np.ones((2, 2)) for k in range(6)} | {"none": np.ones((0, 2))})
    write_model(tmp_path / "a" / "step-100", {"w0": np.zeros((2, 2))})
    write_model(tmp_path / "b" / "step-100", {"w0": np.zeros((2, 2)), "w1": np.zeros((2, 2)), "none": np.ones((0, 2))})
    return [open_checkpoint(tmp_path / name) for name in ("base", "a/step-100", "b/step-100")]


def test_tensors_are_compared_for_those_that_hold_them(models):
    tensors, sentences = pair_up(models, ["base", "x", "y"])
    assert [(p.job.name, p.present) for p in tensors] == [("w0", (0, 1)), ("w1", (1,))]
    assert sentences == (
        "x lacks 6 tensors (none, w1, w2 and 3 more) of the base",
        "y lacks 4 tensors (w2, w3, w4 and 1 more) of the base",
    )
