"""TRL's sparse steps: indices and values, and what is malformed."""

import numpy as np
import pytest

from rlmerge.checkpoint import open_checkpoint
from rlmerge.errors import CheckpointError
from support import published

BASE = {"w": np.arange(300, dtype=np.uint16), "n": np.zeros(5, np.uint16)}
GOOD = {"w.indices": np.array([3, 9], np.int32), "w.values": np.array([7, 8], np.uint16)}


@pytest.fixture
def base(tmp_path):
    return open_checkpoint(published.model(tmp_path / "base", BASE))


def step(tmp_path, tensors, metadata):
    published.save(tmp_path / "run" / "deltas" / "step_000004.safetensors", tensors, metadata)
    return tmp_path / "run"


def test_values_by_hand(base, tmp_path):
    for folder in (step(tmp_path, GOOD, {"sparse": "True"}), tmp_path / "run" / "deltas"):
        found = open_checkpoint(folder, base=base).tensors["w"].read()
        assert found[[2, 3, 4, 9, 299]].tolist() == [2, 7, 4, 8, 299]


BROKEN = [
    ({}, {}, "is not marked as sparse"),
    ({"w.values": None}, {"sparse": "True"}, "'w.indices' must be int32, with as many w.values"),
    ({"w.values": np.zeros(3, np.uint16)}, {"sparse": "True"}, "'w.indices' must be int32"),
    ({"w.indices": np.zeros(2, np.float32)}, {"sparse": "True"}, "'w.indices' must be int32"),
    ({"v": np.zeros(2, np.uint16)}, {"sparse": "True"}, "tensor 'v' is neither indices nor their values"),
    ({"v.values": np.zeros(2, np.uint16)}, {"sparse": "True"}, "tensor 'v.values' is neither"),
]


@pytest.mark.parametrize(("change", "metadata", "message"), BROKEN)
def test_a_malformed_step_is_refused_when_opened(base, tmp_path, change, metadata, message):
    tensors = {name: x for name, x in (GOOD | change).items() if x is not None}
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(step(tmp_path, tensors, metadata), base=base)


@pytest.mark.parametrize("places", [[9, 3], [3, 3], [-1, 3], [3, 300]])
def test_positions_must_increase_within_the_tensor(base, tmp_path, places):
    folder = step(tmp_path, GOOD | {"w.indices": np.array(places, np.int32)}, {"sparse": "True"})
    with pytest.raises(CheckpointError, match="its positions do not increase within the 300 of the tensor"):
        open_checkpoint(folder, base=base).tensors["w"].read()


def test_values_of_another_type(base, tmp_path):
    folder = step(tmp_path, GOOD | {"w.values": np.zeros(2, np.float32)}, {"sparse": "True"})
    with pytest.raises(CheckpointError, match="holds values of float32; the base has bfloat16"):
        open_checkpoint(folder, base=base).tensors["w"].read()
