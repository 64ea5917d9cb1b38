from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("torch")
pytest.importorskip("transformers")

from rlmerge.checkpoint.model import open_checkpoint
from rlmerge.checkpoint.sensitivity import load_sensitivity
from rlmerge.cli.sensitivity import command
from rlmerge.errors import RequestError

CHECKPOINTS = Path(__file__).parents[2] / "examples" / "checkpoints"
EXPERT = CHECKPOINTS / "rl-cnt"


@pytest.fixture(autouse=True)
def one_thread():
    """The models are too small to share among threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def data(tmp_path):
    """Twelve counting questions."""
    rows = (CHECKPOINTS / "data" / "dev.jsonl").read_text().splitlines()
    path = tmp_path / "cnt.jsonl"
    path.write_text("\n".join([row for row in rows if json.loads(row)["task"] == "cnt"][:12]))
    return str(path)


def run(*arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)


def test_measures_a_real_expert(data, tmp_path):
    out = tmp_path / "fisher"
    result = run("--model", EXPERT, "--data", data, "-o", out, "--batch-size", 4, "--gram", "--format", "json")
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    # Every answer of this task is one digit and the end-of-sequence token.
    assert summary["record"]["sequences"] == 12 and summary["record"]["tokens"] == 24
    loaded = load_sensitivity(out, open_checkpoint(EXPERT))
    loaded.scan()
    assert loaded.tensors.keys() == open_checkpoint(EXPERT).tensors.keys()
    assert "model.layers.2.mlp.up_proj.weight" in loaded.grams


def test_rewarded_samples_of_a_real_expert(data, tmp_path):
    options = ("--mode", "reward", "--reward", "exact", "--samples", 2, "--max-new-tokens", 4, "--batch-size", 8)
    result = run("--model", EXPERT, "--data", data, "-o", tmp_path / "fisher", *options)
    assert result.exit_code == 0
    # The expert solves this task nine times in ten at temperature 1; below half of 24 is out of the question.
    kept = int(result.stdout.split(" of 24 samples earned")[0].split()[-1])
    assert 12 <= kept <= 24


def test_option_names_reach_the_options(data, tmp_path):
    with pytest.raises(RequestError, match="batch_size must be at least 1"):
        run("--model", EXPERT, "--data", data, "-o", tmp_path / "fisher", "--batch-size", 0)
