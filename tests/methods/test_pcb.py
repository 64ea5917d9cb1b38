"""PCB against its steps on whole vectors, by hand, and at its limits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rlmerge
from support.interpret import interpret
from support.models import read_model, write_model


def merged(tau, **options):
    return interpret("pcb", np.zeros(tau.shape[1:]), tau, **options)


def reference(tau, ratio):
    """The steps of the paper's code on [K, d], with sorts."""
    count, d = tau.shape
    size = np.abs(tau)
    ordered = np.sort(size, axis=1)
    clamped = np.clip(size, ordered[:, [int(d * 1e-4)]], ordered[:, [int(d * (1 - 1e-4) - 1)]])
    low, high = clamped.min(1, keepdims=True), clamped.max(1, keepdims=True)
    value = np.exp(count * ((clamped - low) / (high - low)) ** 2) * np.tanh(tau * tau.sum(0))
    ordered = np.sort(value, axis=1)
    value = np.clip(value, ordered[:, [int(d * (1 - ratio))]], ordered[:, [d - 1]])
    low, high = value.min(1, keepdims=True), value.max(1, keepdims=True)
    score = (value - low) / (high - low)
    return (np.sign(tau) * clamped * score).sum(0) / np.maximum(score.sum(0), 1e-12)


@given(st.integers(0, 100), st.sampled_from([0.05, 0.1, 0.4]))
def test_equals_its_steps(seed, ratio):
    tau = np.random.default_rng(seed).standard_normal((3, 400))
    np.testing.assert_allclose(merged(tau, ratio=ratio), reference(tau, ratio), rtol=1e-9, atol=1e-12)


def test_by_hand():
    """Each of two experts has one coordinate that stands out: it alone has the largest score, 1."""
    tau = np.array([[9.0, 1, 1, 1], [1, 1, -8, 1]])
    found = merged(tau, ratio=0.25)
    # int(4 · (1 − 1e-4) − 1) = 2 is the place of the largest magnitude that is not clamped: 1 of both.
    np.testing.assert_allclose(found, np.where(found == 0, 0, np.sign(found)), rtol=1e-14)


def test_an_expert_alone_keeps_its_largest_changes():
    tau = np.random.default_rng(0).standard_normal((1, 300))
    found = merged(tau, ratio=0.1)
    kept = found != 0
    assert 29 <= kept.sum() <= 30  # the smallest of the top tenth has score 0
    limit = np.sort(np.abs(tau[0]))[-1 - 1]
    np.testing.assert_allclose(found[kept], np.clip(tau[0], -limit, limit)[kept], rtol=1e-12)


def test_order_and_nothing():
    tau = np.random.default_rng(1).standard_normal((3, 200))
    np.testing.assert_allclose(merged(tau[::-1]), merged(tau), rtol=1e-9, atol=1e-12)
    assert not merged(np.zeros((2, 50))).any()


@pytest.mark.parametrize("scope", ["global", "tensor"])
def test_files_compete_over_the_model_or_the_tensor(tmp_path, scope):
    rng = np.random.default_rng(2)
    tau = rng.standard_normal((2, 500)).astype(np.float32)
    tau[:, 300:] *= 0.1
    parts = {"a": slice(0, 300), "b": slice(300, 500)}
    write_model(tmp_path / "base", {n: np.zeros(tau[0, s].shape) for n, s in parts.items()}, "float32")
    entries = [
        {"model": str(write_model(tmp_path / str(k), {n: each[s] for n, s in parts.items()}, "float32"))}
        for k, each in enumerate(tau)
    ]
    recipe = {"merge_method": "pcb", "base_model": str(tmp_path / "base"), "models": entries}
    rlmerge.merge({**recipe, "parameters": {"scope": scope}}, tmp_path / "out", cache=False)
    found = read_model(tmp_path / "out")
    if scope == "global":
        expected = reference(tau.astype(np.float64), 0.1)
    else:
        expected = np.concatenate([reference(tau[:, s].astype(np.float64), 0.1) for s in parts.values()])
    # Scores and thresholds in float32: 2^-24 of scores up to e², over differences of them.
    np.testing.assert_allclose(np.concatenate([found["a"], found["b"]]), expected, rtol=1e-3, atol=1e-4)
