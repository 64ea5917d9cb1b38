"""`rlmerge extract-lora` as it is run: text, JSON, warnings and errors."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from rlmerge.checkpoint import open_checkpoint
from rlmerge.cli import extract_lora
from rlmerge.errors import RequestError
from support.adapters import MADE, values
from support.models import write_model


@pytest.fixture
def run(tmp_path):
    """Run the command on the base of a made adapter and an expert of it."""
    base = MADE / "llama" / "base"
    rng = np.random.default_rng(0)
    arrays = {
        name: value + 0.1 * rng.standard_normal(value.shape) if "norm" not in name else value
        for name, value in values(open_checkpoint(base)).items()
    }
    expert = write_model(tmp_path / "expert", arrays)
    (expert / "config.json").write_text((base / "config.json").read_text())

    def call(*arguments, catch=True):
        line = [str(expert), "--base", str(base), "-o", str(tmp_path / "out"), *arguments]
        return CliRunner().invoke(extract_lora.command, line, catch_exceptions=catch)

    return call


def test_text_has_a_line_for_each_module(run, tmp_path):
    done = run("--rank", "2", "--quiet")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{tmp_path / 'out'}: 16 modules of ")
    assert sum("rank 2" in line and "% lost" in line for line in lines) == 16
    assert "of the change is lost" in lines[-2]
    assert "not of low rank" in lines[-1]
    assert open_checkpoint(tmp_path / "out", base=open_checkpoint(MADE / "llama" / "base"))


def test_json_has_numbers(run):
    result = json.loads(run("--rank", "2", "--quiet", "--format", "json").stdout)
    assert len(result["modules"]) == 16
    assert result["modules"][0].keys() == {"name", "rank", "exact_rank", "lost", "total", "residual"}
    assert 0.3 < result["residual"] < 1


def test_a_full_rank_is_exact(run):
    done = run("--rank", "16", "--quiet")
    assert "rank 16  exact" in done.stdout and "not of low rank" not in done.stdout


def test_what_is_left_out_is_a_warning(run):
    done = run("--exclude", "*embed_tokens*", "--quiet", "--dtype", "bfloat16")
    assert "warning: the adapter leaves model.embed_tokens.weight as in the base" in done.stderr
    assert "left out  100 % lost" in done.stdout


def test_many_modules_are_summed_up_by_kind(run, monkeypatch):
    monkeypatch.setattr(extract_lora, "MANY", 10)
    done = run("--rank", "2", "--quiet")
    assert "q_proj × 2" in done.stdout and "embed_tokens × 1" in done.stdout
    assert len(done.stdout.splitlines()) == 1 + 9 + 2


def test_an_existing_output_is_an_error(run, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(RequestError, match="exists"):
        run("--quiet", catch=False)
