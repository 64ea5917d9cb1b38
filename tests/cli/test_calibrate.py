from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("torch")
pytest.importorskip("transformers")

from rlmerge.cli.calibrate import command

CHECKPOINTS = Path(__file__).parents[2] / "examples" / "checkpoints"


@pytest.fixture(autouse=True)
def examples(tmp_path, monkeypatch):
    """The working directory beside the shipped examples, with questions of two tasks and a recipe."""
    import torch

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("base", "rl-cnt", "rl-shift"):
        (tmp_path / name).symlink_to(CHECKPOINTS / name)
    rows = (CHECKPOINTS / "data" / "dev.jsonl").read_text().splitlines()
    for task in ("cnt", "shift"):
        chosen = [row for row in rows if json.loads(row)["task"] == task][:15]
        (tmp_path / f"{task}.jsonl").write_text("\n".join(chosen))
    recipe = "merge_method: covariance\nbase_model: base\nmodels:\n- {model: rl-cnt}\n- {model: rl-shift}\n"
    (tmp_path / "recipe.yaml").write_text(recipe)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(*arguments):
    return CliRunner().invoke(command, ["recipe.yaml", *map(str, arguments)], catch_exceptions=False)


def test_calibrates_real_experts(tmp_path):
    prompts = ("--prompts", "rl-cnt=cnt.jsonl", "rl-shift=shift.jsonl", "--batch-size", 16, "--steps", 4, "--quiet")
    files = ("-o", "out.yaml", "--json", "out.json", "--report", "out.html")
    done = run(*prompts, *files, "--max-new-tokens", 6, "--layer-groups", 0, "--format", "json")
    assert done.exit_code == 0
    result = json.loads(done.stdout)
    assert result == json.loads(Path("out.json").read_text())
    assert result["parameter"] == "weight" and result["rows"] == ["rl-cnt", "rl-shift"]
    assert result["objective"]["calibrated"] < result["objective"]["given"] < result["objective"]["base"]
    assert Path("out.yaml").read_text() == result["recipe"]
    assert "rl-shift" in Path("out.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--prompts", "rl-cnt"), "write --prompts EXPERT=DATA"),
        (("--prompts", "rl-cnt=a", "rl-cnt=b"), "rl-cnt is given twice"),
    ],
)
def test_prompts_are_read_before_anything_else(arguments, message):
    done = run("-o", "out.yaml", *arguments)
    assert done.exit_code == 2 and message in done.output
