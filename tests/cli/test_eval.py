import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support import fake_lm_eval
from support.command_line import is_running, start, wait_until

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "examples" / "checkpoints"


@pytest.fixture
def here(tmp_path):
    """A base, two experts, a merge, and twelve items a task, in the directory that commands run in."""
    for name in ("base", "rl-rev", "rl-cnt"):
        shutil.copytree(MODELS / name, tmp_path / name)
    shutil.copytree(MODELS / "sft-matched-rev", tmp_path / "merged")
    rows = [json.loads(line) for line in (MODELS / "data" / "test.jsonl").read_text().splitlines()]
    kept = [row for task in ("rev", "cnt") for row in [row for row in rows if row["task"] == task][:24]]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    (tmp_path / "prompts.txt").write_text("".join(row["prompt"] + "\n" for row in kept[::8]))
    return tmp_path


ARGUMENTS = ("eval", "merged", "--base", "base", "--experts", "rl-rev", "rl-cnt", "--tasks")


def test_table_json_and_report(rlmerge, here):
    done = rlmerge(*ARGUMENTS, "exact:items.jsonl", "-o", "r.html", "--json", "r.json")
    assert done.returncode == 0, done.stderr
    assert "1 merge, 2 experts and their base on 2 tasks" in done.stdout
    assert "merged on cnt: pass@1 0." in done.stderr
    assert (here / "r.html").read_text().startswith("<!doctype html>")
    data = json.loads((here / "r.json").read_text())
    assert data["schema"] == "rlmerge.eval/1"
    assert [task["experts"] for task in data["tasks"]] == [["rl-rev"], ["rl-cnt"]]
    # The merge here is an expert of rev trained otherwise: it keeps the gain there and loses on cnt.
    (rev, cnt) = data["merges"][0]["per_task"]
    assert (rev["verdict_to_base"], cnt["verdict_to_base"]) == ("better", "worse")
    again = rlmerge(*ARGUMENTS, "exact:items.jsonl", "--format", "json", "--quiet")
    assert again.returncode == 0 and again.stderr == ""
    found = json.loads(again.stdout)
    assert {model["scored"] for model in found["models"]} == {"cached"}
    assert found["scores"] == data["scores"]


def test_health_and_landscape(rlmerge, here):
    more = ["--health", "prompts.txt", "--landscape", "items.jsonl", "--limit", "3", "--max-new-tokens", "8"]
    done = rlmerge(*ARGUMENTS, "exact:items.jsonl", *more, "--format", "json", "--quiet")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [model["name"] for model in found["health"]["models"]] == ["base", "rl-rev", "rl-cnt", "merged"]
    assert set(found["health"]["models"][3]["kl_to"]) == {"base", "rl-rev", "rl-cnt"}
    pictures = found["landscape"]["pictures"]
    assert {(p["center"], p["direction"]) for p in pictures} == {("rl-rev", "rl-cnt"), ("rl-cnt", "rl-rev")}
    assert all(len(p["score"]) == 5 and len(p["score"][0]) == 3 for p in pictures)
    assert {(b["a"], b["b"]) for b in found["landscape"]["barriers"]} == {("rl-rev", "rl-cnt")}
    assert {s["model"] for s in found["landscape"]["sharpness"]} == {"base", "rl-rev", "rl-cnt", "merged"}


def test_the_documented_commands_run(rlmerge, here):
    (commands,) = re.findall(
        r"```bash\ncd examples/checkpoints\n(.*?)```", (ROOT / "docs" / "eval.md").read_text(), re.S
    )
    shutil.copytree(MODELS / "rl-shift", here / "rl-shift")
    (here / "data").mkdir()
    shutil.copy(here / "items.jsonl", here / "data" / "test.jsonl")
    for line in commands.splitlines():
        program, *arguments = shlex.split(line)
        assert program == "rlmerge"
        done = rlmerge(*arguments)
        assert done.returncode == 0, done.stderr
    assert "merged-ties" in done.stdout and (here / "report.html").exists()


def test_the_documented_python_runs(here, monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "eval.md").read_text(), re.S)
    shutil.copytree(here / "merged", here / "merged-ta")
    (here / "data").mkdir()
    shutil.copy(here / "items.jsonl", here / "data" / "test.jsonl")
    monkeypatch.chdir(here)
    exec(blocks[0], {"__name__": "example"})
    assert "rlmerge.eval/1" in capsys.readouterr().out


def test_files_for_the_hub(rlmerge, here):
    script = here / "my_eval.py"
    script.write_text("import json; print(json.dumps({'gsm8k': {'acc': 0.5, 'acc_stderr': 0.01, 'n': 1319}}))")
    command = f"{shlex.quote(sys.executable)} my_eval.py {{model}}"
    arguments = [*ARGUMENTS, "command:gsm8k", "--command", command, "--eval-results", "hub", "--quiet"]
    done = rlmerge(*arguments)
    assert done.returncode == 0, done.stderr
    assert "openai/gsm8k" in (here / "hub" / "merged" / ".eval_results" / "gsm8k.yaml").read_text()
    other = rlmerge(*ARGUMENTS, "exact:items.jsonl", "--eval-results", "hub", "--quiet")
    assert other.returncode == 2 and "no score can be published" in other.stderr
    assert "2 tasks" in other.stdout


def test_a_harness_that_fails_is_shown_with_what_it_said(rlmerge, here):
    program = here / "lm_eval"
    program.write_text(f"#!{sys.executable}\n" + Path(fake_lm_eval.__file__).read_text())
    program.chmod(0o755)
    words = ["lm-eval:tiny", "lm-eval:crash", "--lm-eval", "./lm_eval", "--store", "store"]
    done = rlmerge(*ARGUMENTS, *words)
    assert done.returncode == 1
    assert "base on crash: crash on" in done.stderr and "CUDA out of memory" in done.stderr
    assert "run the same command again" in done.stderr
    done = rlmerge(*ARGUMENTS, "lm-eval:tiny", *words[2:], "--format", "json", "--quiet")
    assert done.returncode == 0, done.stderr
    assert {model["scored"] for model in json.loads(done.stdout)["models"]} == {"cached"}


def test_a_report_that_cannot_be_written_costs_no_score(rlmerge, here):
    done = rlmerge(*ARGUMENTS, "exact:items.jsonl", "--json", "/dev/full")
    assert done.returncode == 1
    assert "/dev/full: cannot be written (No space left on device)" in done.stderr
    again = rlmerge(*ARGUMENTS, "exact:items.jsonl", "--format", "json", "--quiet")
    assert {model["scored"] for model in json.loads(again.stdout)["models"]} == {"cached"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_ending_it_ends_the_harness_and_what_that_started(here, number):
    (here / "slow.py").write_text(
        "import os, pathlib, subprocess, time; child = subprocess.Popen(['sleep', '60']);"
        "pathlib.Path('new').write_text(f'{os.getpid()} {child.pid}');"
        "pathlib.Path('new').rename('pids'); time.sleep(60)"
    )
    command = f"{shlex.quote(sys.executable)} slow.py {{model}}"
    arguments = [*ARGUMENTS, "command:x", "--command", command, "--quiet", "--store", "store"]
    with start(*arguments, cwd=here, stderr=subprocess.PIPE) as process:
        wait_until((here / "pids").exists)
        process.send_signal(number)
        assert process.wait(30) == (-number if number == signal.SIGKILL else 128 + number)
    for pid in (here / "pids").read_text().split():
        wait_until(lambda pid=pid: not is_running(pid))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["eval", "merged", "--base", "base", "--experts", "rl-rev"], "Missing option '--tasks'"),
        ([*ARGUMENTS, "gsm9k"], "Did you mean 'gsm8k'"),
        ([*ARGUMENTS, "exact:items.jsonl:reverse"], "Did you mean 'rev'"),
        ([*ARGUMENTS, "exact:items.jsonl", "--own", "rl-rev"], "write --own EXPERT=TASK"),
        ([*ARGUMENTS, "exact:items.jsonl", "--own", "rl-rv=rev"], "Did you mean 'rl-rev'"),
        ([*ARGUMENTS, "exact:items.jsonl", "-o", "missing/r.html"], "its directory does not exist"),
        ([*ARGUMENTS, "humaneval", "--lm-eval", sys.executable], "--unsafe-code"),
        ([*ARGUMENTS, "exact:items.jsonl", "--benchmark", "rev"], "OWNER/NAME:TASK"),
    ],
)
def test_requests_that_make_no_sense(rlmerge, here, arguments, words):
    done = rlmerge(*arguments)
    assert done.returncode == 2, done.stdout
    assert words in done.stderr


def test_exact_items_need_the_core_install_alone(here):
    code = (
        "import sys\nfrom rlmerge.cli.app import run\n"
        f"assert run({[*ARGUMENTS, 'exact:items.jsonl', '--quiet']!r}) == 0\n"
        "heavy = {'torch', 'transformers', 'scipy', 'reasoning_gym', 'huggingface_hub'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
