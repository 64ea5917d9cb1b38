"""`rlmerge tune` as the documentation shows it: the shipped search file on the shipped examples."""

import json
import shutil
from pathlib import Path

import pytest

from support.command_line import run_rlmerge
from support.pages import Page

MODELS = Path(__file__).parents[2] / "examples" / "checkpoints"


@pytest.fixture
def here(tmp_path):
    pytest.importorskip("optuna")
    for name in ("base", "rl-rev", "rl-cnt", "rl-shift", "data"):
        (tmp_path / name).symlink_to(MODELS / name)
    shutil.copy(MODELS / "search.yaml", tmp_path)
    return tmp_path


def tune(here, *arguments):
    return run_rlmerge("tune", *arguments, cwd=here, XDG_CACHE_HOME=str(here / "cache"), COLUMNS="100")


def test_the_example_of_the_documentation(here):
    done = tune(here, "search.yaml", "-o", "found")
    assert done.returncode == 0, done.stderr
    assert "round 1: 8 of 24 trials, best so far 0." in done.stderr
    assert "Confirmed on test items" in done.stdout
    found = json.loads((here / "found" / "tune.json").read_text())
    assert found["schema"] == "rlmerge.tune/1"
    assert len(found["trials"]) == 24
    # Three rounds, the baseline and where each method begins are a read each, and so is a finalist on test.
    assert found["reads"] <= 7
    winner = found["finalists"][0]
    # On these experts coefficients of their own are worth more than 5 points of the gain over one for all.
    arithmetic = next(pair for pair in found["comparisons"] if pair["against"].startswith("task arithmetic"))
    assert winner["role"] == "winner" and arithmetic["verdict"] == "better"
    page = Page((here / "found" / "report.html").read_text())
    assert (page.open, page.outside) == ([], [])
    assert set(page.targets) <= set(page.ids) and len(set(page.ids)) == len(page.ids)


def test_without_a_search_file(here):
    tasks = ["--tasks", "exact:data/dev.jsonl:rev", "exact:data/dev.jsonl:cnt", "--limit", "8", "--trials", "2"]
    done = tune(
        here, "--base", "base", "rl-rev", "rl-cnt", *tasks, "--objective", "mean", "-o", "found", "--format", "json"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [each["name"] for each in found["dimensions"]] == [
        "merge_method", "weight of rl-rev", "weight of rl-cnt", "density", "lambda",
    ]  # fmt: skip
    assert any("not confirmed" in warning for warning in found["warnings"])


def test_what_is_wrong_is_said_with_exit_code_2(here):
    for arguments, message in (
        (["-o", "found"], "no search file is given"),
        (["search.yaml", "-o", "found", "--trials", "0"], "trials must be a whole number of 1 or more"),
        (["search.yaml", "-o", "found", "--objective", "proxy:kl"], "'proxy:kl' needs prompts of each expert"),
        (["search.yaml", "-o", "found", "--prompts", "rl-rev"], "write --prompts EXPERT=DATA"),
        (["search.yaml", "-o", "base"], "holds something else than a search"),
        (["none.yaml", "-o", "found"], "none.yaml"),
    ):
        done = tune(here, *arguments)
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert not (here / "found").exists()
