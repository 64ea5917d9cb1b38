import math

import numpy as np
import pytest

from rlmerge.errors import RequestError
from rlmerge.evaluate.landscape import weights
from rlmerge.evaluate.landscape.weights import (
    Lazy,
    check_alike,
    combine,
    difference,
    hold,
    noise,
    norm,
    read_weights,
    shapes_of,
)
from support.checkpoints import BASE
from support.models import read_model, write_model

A = {"w": np.array([[1.0, 2.0], [3.0, 4.0]], np.float32), "b": np.array([1.0], np.float32)}
B = {"w": np.array([[1.0, 4.0], [2.0, 4.5]], np.float32), "b": np.array([-1.0], np.float32)}


@pytest.mark.parametrize("memory", [2**30, 0])
def test_reads_every_float_tensor(tmp_path, memory):
    found, expected = read_weights(BASE, memory), read_model(BASE)
    assert isinstance(found, dict) == bool(memory)
    assert found.keys() == expected.keys() and len(found) == len(expected)
    for name, array in found.items():
        assert array.dtype == np.float32 and np.array_equal(array, expected[name].astype(np.float32))
    write_model(tmp_path, {"w": np.ones((2, 3)), "steps": np.array([1, 2])}, "float16")
    assert shapes_of(read_weights(tmp_path, memory)) == {"w": (2, 3)}
    with pytest.raises(KeyError):
        read_weights(tmp_path, memory)["steps"]


def test_sums_worked_by_hand():
    moved = combine([(1.0, A), (0.5, difference(B, A)), (0.0, B)])
    assert shapes_of(moved) == {"w": (2, 2), "b": (1,)}
    assert moved["w"].tolist() == [[1.0, 3.0], [2.5, 4.25]] and moved["b"].tolist() == [0.0]
    assert moved["w"].dtype == np.float32
    assert combine([(0.0, A), (0.0, B)])["w"].tolist() == [[0.0, 0.0], [0.0, 0.0]]
    # What is asked for can be changed without changing what it was computed from.
    moved["w"][:] = 0
    combine([(1.0, A)])["w"][:] = 0
    assert A["w"][1, 1] == 4.0 and moved["w"][1, 1] == 4.25


def test_tensors_are_computed_when_asked_for_and_held_when_small():
    asked = []

    def compute(name):
        asked.append(name)
        return np.ones(4, np.float32)

    lazy = Lazy({"v": (4,)}, compute)
    assert shapes_of(combine([(1.0, lazy), (2.0, lazy)])) == {"v": (4,)} and asked == []
    assert hold(lazy, memory=15) is lazy
    held = hold(lazy, memory=16)
    assert held["v"].tolist() == held["v"].tolist() == [1.0] * 4 and asked == ["v"]


def test_noise_has_the_norms_it_should_and_follows_from_its_labels(monkeypatch):
    like = {
        "w": np.full((30, 40), 0.5, np.float32),
        "zero": np.zeros(3, np.float32),
        "none": np.zeros((0, 2), np.float32),
    }
    made = {name: array.copy() for name, array in noise(like, "x", 1).items()}
    # √1200 / 2; float32 entries.
    assert norm(made["w"]) == pytest.approx(math.sqrt(1200) / 2, rel=1e-6)
    assert made["zero"].tolist() == [0.0] * 3 and made["none"].shape == (0, 2)
    assert norm(noise(like, "x", 1, scale=0.1)["w"]) == pytest.approx(math.sqrt(1200) / 20, rel=1e-6)
    again = noise(like, "x", 1)["w"]
    assert np.array_equal(again, made["w"]) and not np.array_equal(noise(like, "x", 2)["w"], again)
    # In pieces of any length the numbers are the same; sums of squares differ in their last digit.
    monkeypatch.setattr(weights, "_PIECE", 7)
    np.testing.assert_allclose(noise(like, "x", 1)["w"], again, rtol=1e-6)


def test_noise_is_normal():
    made = noise({"v": np.ones(20_000, np.float32)}, "normal")["v"].astype(np.float64)
    # Five standard errors of mean, skewness (√6/n) and kurtosis (√24/n); the norm fixes the variance.
    assert abs(made.mean()) < 5 / math.sqrt(20_000)
    assert abs((made**3).mean()) < 5 * math.sqrt(6 / 20_000) + 3 * 5 / math.sqrt(20_000)
    assert abs((made**4).mean() - 3) < 5 * math.sqrt(24 / 20_000)
    # Neighbours do not know of each other.
    assert abs((made[1:] * made[:-1]).mean()) < 5 / math.sqrt(20_000)


def test_noise_by_entry_leaves_zeros_and_moves_large_weights_more():
    like = {"v": np.array([0.0, 1.0, -100.0] * 500, np.float32)}
    made = noise(like, "x", scale=0.1, by_entry=True)["v"].reshape(-1, 3)
    assert norm(made) == pytest.approx(0.1 * norm(like["v"]), rel=1e-6)
    assert not made[:, 0].any()
    # A ratio of two standard deviations from 500 numbers each has a relative standard error of √(1/500).
    assert made[:, 2].std() / made[:, 1].std() == pytest.approx(100, rel=5 / math.sqrt(500))


def test_models_of_other_shapes_are_named():
    check_alike({"a": A, "b": B})
    with pytest.raises(RequestError, match=r"w: c holds \[4\] where a holds \[2, 2\]"):
        check_alike({"a": A, "c": {**A, "w": A["w"].reshape(-1)}})
    with pytest.raises(RequestError, match=r"b: c holds nothing where a holds \[1\]"):
        check_alike({"a": A, "b": B, "c": {"w": A["w"]}})
    with pytest.raises(RequestError, match=r"x: c holds \[1\] where a holds nothing"):
        check_alike({"a": A, "c": {**A, "x": A["b"]}})
