"""Searches need Optuna; scores go into a store of the test's own."""

from pathlib import Path

import numpy as np
import pytest

from support.models import write_model

MODELS = Path(__file__).parents[2] / "examples" / "checkpoints"


@pytest.fixture(autouse=True)
def own_store(tmp_path, monkeypatch):
    """Scores and statistics of no other test."""
    pytest.importorskip("optuna")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The working directory with ``base``, ``e0`` and ``e1``, 64 float32 weights in two layers, and no tokenizer."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    base = {f"model.layers.{k}.w": rng.standard_normal((4, 8), np.float32) for k in range(2)}
    write_model(tmp_path / "base", base)
    for k in range(2):
        moved = {n: w + np.float32(0.01) * (rng.random(w.shape) < 0.5) for n, w in base.items()}
        write_model(tmp_path / f"e{k}", {n: w.astype(np.float32) for n, w in moved.items()})
    return tmp_path


@pytest.fixture
def examples(tmp_path, monkeypatch):
    """The working directory beside the shipped examples, as ``base`` and ``rl-*``, with their data."""
    monkeypatch.chdir(tmp_path)
    for name in ("base", "rl-rev", "rl-cnt", "data"):
        (tmp_path / name).symlink_to(MODELS / name)
    return tmp_path
