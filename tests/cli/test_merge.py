import json
import os
import pty
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from rlmerge.cli.merge import merge_text
from rlmerge.merging import MergeResult
from rlmerge.merging.account import Detail, ExpertSurvival
from support.command_line import start

RECIPE = "merge_method: task_arithmetic\nbase_model: base\nmodels:\n- model: math\n- model: code\n"

PLAIN = {"width": 100, "color": False}
EXPERT = ExpertSurvival("org/math", 1000, 971, 600, 20, 1.0, 0.98, 1.0)
NOTHING = ExpertSurvival("[b]x", 0, 0, 0, 0, None, None, None)
MERGE = MergeResult(
    out=Path("merged"),
    method="ram",
    status="exact",
    seconds=2.0,
    bytes_read=3_000_000_000,
    bytes_written=1_000_000_000,
    peak_memory=512_000_000,
    tensors=290,
    resumed=0,
    parameters=10,
    changed=1000,
    survived=971,
    experts=(EXPERT, NOTHING),
    warnings=("rounding erased 29 % of math's changes",),
)


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
    process = start("merge", "recipe.yaml", "-o", "out", cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    with open(tmp_path / "recipe.yaml", "w"):  # noqa: PTH123 - returns once the other side has opened it for reading
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.strip() == "error: interrupted\n  Run the same command with --resume to continue."


def test_merge_text_is_a_row_per_expert_then_cost_then_warnings():
    assert merge_text(MERGE, **PLAIN).splitlines() == [
        "ram (exact) → merged",
        "",
        "expert    changed  unique  survived  erased    coefficient",
        "org/math    1,000     600    97.1 %   2.0 %  1.000 → 0.980",
        "[b]x            0       0         -       -          - → -",
        "",
        "290 tensors, 3 GB read, 1 GB written in 2.00 s (2 GB/s), peak memory 512 MB",
        "",
        "warning: rounding erased 29 % of math's changes",
    ]


def test_what_the_method_measured_stands_between_survival_and_cost():
    bound = Detail("bound", 0.00123456, {"a": 0.001, "b": 0.25})
    text = merge_text(replace(MERGE, details=(bound, Detail("[b]won", None, {}))), **PLAIN)
    assert text.splitlines()[6:9] == [
        "measured by the method     model  tensors from    to",
        "bound                   0.001235         0.001  0.25",
        "[b]won                         -             -     -",
    ]


def test_a_resumed_merge_without_a_base():
    result = replace(MERGE, experts=(), resumed=12, peak_memory=None, seconds=0.0, warnings=())
    assert merge_text(result, **PLAIN).splitlines() == [
        "ram (exact) → merged",
        "",
        "290 tensors (12 from before), 3 GB read, 1 GB written in 0.00 s",
    ]


def test_narrow_tables_fold_and_lose_nothing():
    text = merge_text(replace(MERGE, experts=(replace(EXPERT, name="a" * 60),)), width=60, color=False)
    assert text.count("a") >= 60
    assert max(map(len, text.split("290 tensors")[0].splitlines())) <= 60


def test_colour_only_where_asked():
    assert "\x1b[" in merge_text(MERGE, width=100, color=True)
    assert "\x1b[" not in merge_text(MERGE, **PLAIN)
