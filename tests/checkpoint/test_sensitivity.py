from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from rlmerge.checkpoint.model import open_checkpoint
from rlmerge.checkpoint.sensitivity import check_values, load_sensitivity
from rlmerge.checkpoint.sensitivity_record import SensitivityRecord
from rlmerge.errors import CheckpointError

WEIGHTS = {"a.weight": np.ones((4, 3), np.float32), "b": np.zeros(5, np.float32), "steps": np.arange(3)}
FISHER = {"a.weight": np.full((4, 3), 0.5, np.float32), "b": np.zeros(5, np.float32)}


def record(digest: str, **changes) -> SensitivityRecord:
    counts = dict.fromkeys(
        ("sequences", "tokens", "truncated", "dropped", "eos_appended", "sampled", "gram_tokens", "seed"), 1
    )
    limits = dict.fromkeys(("max_length", "max_new_tokens", "batch_size"), 1)
    texts = {
        "model": "expert",
        "data": "d",
        "data_digest": "x",
        "mode": "empirical",
        "dtype": "float32",
        "device": "cpu",
    }
    rest = {"model": "expert", "reward": None, "versions": {"torch": "2"}, "uncovered": (), "grams": {}}
    return SensitivityRecord(**{**counts, **limits, **texts, **rest, "model_digest": digest, **changes})


@pytest.fixture
def checkpoint(tmp_path):
    return saved(tmp_path / "expert", WEIGHTS)


def saved(directory, tensors):
    directory.mkdir()
    save_file(tensors, directory / "model.safetensors")
    return open_checkpoint(directory)


def fisher(tmp_path, checkpoint, tensors=FISHER, **changes):
    directory = saved(tmp_path / "fisher", tensors).path
    (directory / "sensitivity.json").write_bytes(record(checkpoint.fingerprint(), **changes).to_json())
    return directory


def test_loads_the_float_tensors_of_the_checkpoint(tmp_path, checkpoint):
    loaded = load_sensitivity(fisher(tmp_path, checkpoint), checkpoint)
    assert loaded.tensors.keys() == FISHER.keys() and loaded.grams == {}
    assert loaded.record == record(checkpoint.fingerprint())
    loaded.scan()


def test_layers_with_the_same_input_share_a_gram(tmp_path, checkpoint):
    tensors = {**FISHER, "other.weight.gram": np.eye(3, dtype=np.float32)}
    directory = fisher(tmp_path, checkpoint, tensors, grams={"a.weight": "other.weight.gram"})
    assert load_sensitivity(directory, checkpoint).grams["a.weight"].shape == (3, 3)


def test_a_sensitivity_of_another_model_is_refused(tmp_path, checkpoint):
    other = saved(tmp_path / "other", {**WEIGHTS, "b": np.ones(5, np.float32)})
    directory = fisher(tmp_path, checkpoint)
    with pytest.raises(CheckpointError, match=r"another model \('expert', digest \w{12}\), not on") as error:
        load_sensitivity(directory, other)
    assert other.fingerprint()[:12] in str(error.value) and "rlmerge sensitivity --model" in str(error.value)


def test_missing_tensors_are_listed(tmp_path, checkpoint):
    directory = fisher(tmp_path, checkpoint, {"b": FISHER["b"]})
    with pytest.raises(CheckpointError, match=r"lacks 1 tensors: a\.weight"):
        load_sensitivity(directory, checkpoint)


def test_stored_constants_need_no_sensitivity(tmp_path, checkpoint):
    directory = fisher(tmp_path, checkpoint, {"b": FISHER["b"]}, uncovered=("a.weight",))
    assert load_sensitivity(directory, checkpoint).tensors.keys() == {"b"}


@pytest.mark.parametrize("wrong", [np.ones((3, 4), np.float32), np.ones((4, 3), np.float16)])
def test_other_shapes_and_types_are_refused(tmp_path, checkpoint, wrong):
    with pytest.raises(CheckpointError, match=r"not float32 \[4, 3\]"):
        load_sensitivity(fisher(tmp_path, checkpoint, {**FISHER, "a.weight": wrong}), checkpoint)


@pytest.mark.parametrize("bad", [-1e-30, np.nan, np.inf, -np.inf])
def test_negative_and_non_finite_values_are_located(tmp_path, checkpoint, bad):
    values = np.full((4, 3), 0.5, np.float32)
    values.flat[[7, 11]] = bad
    loaded = load_sensitivity(fisher(tmp_path, checkpoint, {**FISHER, "a.weight": values}), checkpoint)
    with pytest.raises(CheckpointError, match=r"a\.weight: 2 sensitivities are negative or not finite.* is at 7"):
        loaded.scan()
    with pytest.raises(CheckpointError, match=r"1 sensitivities .* is at 11"):
        check_values(values.ravel()[8:], loaded.tensors["a.weight"], 8)


def test_a_model_directory_is_no_sensitivity(checkpoint):
    with pytest.raises(CheckpointError, match=r"is not a sensitivity directory \(it has no sensitivity\.json\)"):
        load_sensitivity(checkpoint.path, checkpoint)


def test_a_damaged_record_is_refused(tmp_path, checkpoint):
    directory = fisher(tmp_path, checkpoint)
    path = directory / "sensitivity.json"
    good = json.loads(path.read_text())
    damaged = {
        "format_version is 1": {**good, "format_version": 1},
        "format_version is None": [],
        "'mode' is missing or": {key: value for key, value in good.items() if key != "mode"},
        "'tokens' is missing or of the wrong type": {**good, "tokens": "many"},
        "'grams' is missing or of the wrong type": {**good, "grams": {"a": 1}},
        "'uncovered' is missing or of the wrong type": {**good, "uncovered": [1]},
        "unknown keys": {**good, "surprise": 1},
    }
    for message, content in damaged.items():
        path.write_text(json.dumps(content))
        with pytest.raises(CheckpointError, match=message):
            load_sensitivity(directory, checkpoint)
