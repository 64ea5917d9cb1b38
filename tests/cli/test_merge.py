import json
import os
import pty
import signal
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from support.command_line import PROGRAM, heed_interrupts

RECIPE = "merge_method: task_arithmetic\nbase_model: base\nmodels:\n- model: math\n- model: code\n"


def test_a_recipe_becomes_a_directory_and_a_table(models, rlmerge):
    (models / "recipe.yaml").write_text(RECIPE)
    done = rlmerge("merge", "recipe.yaml", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert "task_arithmetic (exact) → out" in done.stdout
    rows = {line.split()[0]: line.split() for line in done.stdout.splitlines() if line}
    assert rows["math"][1:] == ["1", "1", "100.0", "%", "0.0", "%", "1.000", "→", "1.000"]
    merged = load_file(models / "out" / "model.safetensors")["model.layers.0.w"]
    assert np.flatnonzero(merged == 3.0).tolist() == [0, 5]
    assert (merged == 1.0).sum() == 14


def test_flags_give_the_same_weights(models, rlmerge):
    (models / "recipe.yaml").write_text(RECIPE)
    assert rlmerge("merge", "recipe.yaml", "-o", "one", "--quiet").stderr == ""
    flags = ["--method", "task_arithmetic", "--base", "base", "math", "code"]
    done = rlmerge("merge", *flags, "-o", "two", "--format", "json")
    result = json.loads(done.stdout)
    assert (result["method"], [e["changed"] for e in result["experts"]]) == ("task_arithmetic", [1, 1])
    assert (models / "one" / "model.safetensors").read_bytes() == (models / "two" / "model.safetensors").read_bytes()


def test_plain_progress_goes_to_stderr_only(models, rlmerge):
    done = rlmerge("merge", "--method", "ties", "--base", "base", "math", "code", "-o", "out", "--format", "json")
    json.loads(done.stdout)
    assert "merge:" in done.stderr
    assert "\x1b" not in done.stderr


def test_a_terminal_gets_bars_and_colour_and_keeps_the_result(models):
    """The result is what remains on the screen once the bars have gone."""
    command = [sys.executable, "-c", "from rlmerge.cli import main; main()", "merge", "--method", "ram"]
    command += ["--base", "base", "math", "code", "-o", "out"]
    leader, follower = pty.openpty()
    process = subprocess.Popen(command, cwd=models, stdout=follower, stderr=follower)
    os.close(follower)
    shown = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # Linux reports the end of a pseudo-terminal as an input/output error
            break
        if not part:
            break
        shown += part
    os.close(leader)
    assert process.wait(timeout=60) == 0
    assert "ram (exact) → out".encode() in shown
    assert b"\x1b[" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["merge", "recpie.yaml", "-o", "out"],
            "error: recpie.yaml: no such recipe file\n  Did you mean 'recipe.yaml'?",
        ),
        (["merge", "base", "-o", "out"], "error: base: this is a directory, not a recipe"),
        (["merge", "typo.yaml", "-o", "out"], "error: typo.yaml:6: unknown key 'paramters' in the recipe"),
        (["merge", "recipe.yaml"], "error: Missing option '-o' / '--out'."),
        (["merge", "recipe.yaml", "-o", "base"], "base"),
        (["merge", "--method", "ties", "--base", "base", "nowhere/model", "-o", "out"], "nowhere/model"),
    ],
)
def test_a_wrong_request_is_exit_2_and_writes_nothing(models, rlmerge, arguments, message):
    (models / "recipe.yaml").write_text(RECIPE)
    (models / "typo.yaml").write_text(RECIPE + "paramters: {weight: 1}\n")
    before = sorted(models.rglob("*"))
    done = rlmerge(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(models.rglob("*")) == before


def test_json_errors_are_one_object_too(models, rlmerge):
    (models / "typo.yaml").write_text(RECIPE + "paramters: {weight: 1}\ndtpye: bf16\n")
    done = rlmerge("merge", "typo.yaml", "-o", "out", "--format", "json")
    assert (done.returncode, done.stderr) == (2, "")
    assert [p["where"] for p in json.loads(done.stdout)["error"]["problems"]] == ["typo.yaml:6", "typo.yaml:7"]


def test_ctrl_c_is_exit_130_with_the_way_on(tmp_path):
    """Interrupted while it reads a recipe from a pipe into which nothing is written."""
    os.mkfifo(tmp_path / "recipe.yaml")
    command = [*PROGRAM, "merge", "recipe.yaml", "-o", "out"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts)
    with open(tmp_path / "recipe.yaml", "w"):  # noqa: PTH123 - returns once the other side has opened it for reading
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.strip() == "error: interrupted\n  Run the same command with --resume to continue."
