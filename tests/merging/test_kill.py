"""SIGKILL at random moments of real merges: nothing incomplete is ever seen, and resuming gives the same bytes."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import yaml

import rlmerge
from rlmerge.errors import RequestError
from support.family import cli, draw, recipe, tree
from support.models import write_model

KILLS = 30

SLOW = """
import os, sys, time
write = os.pwrite
os.pwrite = lambda *arguments: (time.sleep(0.01), write(*arguments))[1]
from rlmerge.cli import main
main()
"""
"""The command with a disk that takes its time."""

SHAPES = {f"model.layers.{index}.w": (60, 100) for index in range(40)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty matrices, and a recipe that scans, draws random numbers and warns of two degenerate masks."""
    folder = tmp_path_factory.mktemp("killed")
    base, experts = draw(3, shapes=SHAPES)
    for expert in experts:
        expert["model.layers.3.w"][1:] = base["model.layers.3.w"][1:]
        expert["model.layers.30.w"][1:] = base["model.layers.30.w"][1:]
    write_model(folder / "base", base, "bfloat16")
    for k, expert in enumerate(experts):
        write_model(folder / f"e{k}", expert, "bfloat16")
    asked = recipe(folder, "ram_percentile", r=0.2)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(asked))
    return folder


ARGUMENTS = ["merge", "recipe.yaml", "--rounding", "stochastic", "--shard-size", "100kB", "--seed", "5"]


def start(folder, out, cache):
    """A merge in the background, once it has begun to write."""
    command = [sys.executable, "-c", SLOW, *ARGUMENTS, "-o", str(out), "--resume", "--quiet", "--format", "json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(cache)}
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    partial = out.with_name(f".{out.name}.partial")
    before = journal(partial)
    while process.poll() is None and not out.exists() and journal(partial) == before:
        time.sleep(0.002)
    return process


def journal(partial):
    """Identity and size of the journal: it changes when a run begins and with every finished tensor."""
    try:
        status = (partial / "journal.jsonl").stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_size


def test_killed_at_thirty_random_moments(folder, tmp_path):
    process = start(folder, tmp_path / "undisturbed", tmp_path / "cache")
    began = time.perf_counter()
    stdout, _ = process.communicate(timeout=60)
    duration = time.perf_counter() - began
    undisturbed, result = tree(tmp_path / "undisturbed"), json.loads(stdout)
    assert "(2 of 40 tensors)" in result["warnings"][0]
    moments, kills, outputs, resumed = random.Random(4), 0, 0, 0
    while kills < KILLS or not resumed:
        out = tmp_path / f"out{outputs}"
        process = start(folder, out, tmp_path / "cache")
        try:
            # Later kills come when earlier runs have left much of the work done; the last run may finish.
            stdout, _ = process.communicate(timeout=moments.uniform(0, duration) if kills < KILLS else 60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += process.returncode == -signal.SIGKILL
        else:
            assert process.returncode == 0, stdout
            found = json.loads(stdout)
            assert (found["experts"], found["warnings"]) == (result["experts"], result["warnings"])
            resumed += found["resumed"] > 0
        if out.exists():
            assert tree(out) == undisturbed
            # A kill right after the rename leaves the partial directory, without the model.
            left = out.with_name(f".{out.name}.partial")
            assert not (left / "model").exists() and (process.returncode or not left.exists())
            outputs += 1


@pytest.fixture
def interrupted(folder, tmp_path):
    """An output that was killed after a few tensors."""
    process = start(folder, tmp_path / "out", tmp_path / "cache")
    while (tmp_path / ".out.partial" / "journal.jsonl").stat().st_size < 2000:
        time.sleep(0.002)
    process.kill()
    process.communicate()
    return tmp_path / "out"


def test_another_run_is_not_taken_for_the_interrupted_one(folder, interrupted):
    kept = tree(interrupted.with_name(".out.partial"))
    for changed in (
        ["merge", "recipe.yaml", "--shard-size", "100kB", "--seed", "5"],
        ["merge", "recipe.yaml", "--shard-size", "100kB", "--seed", "6", "--rounding", "stochastic"],
        ["merge", "--method", "ram", "--base", "base", "e0", "e1", "e2"],
    ):
        done = cli(folder, *changed, "-o", interrupted, "--resume")
        assert done.returncode == 2
        assert "an interrupted run with another recipe, input, option or version left finished tensors" in done.stderr
        assert "--force" in done.stderr
    without = cli(folder, *ARGUMENTS, "-o", interrupted)
    assert without.returncode == 2
    assert "Continue it with --resume, or discard its work with --force." in without.stderr
    assert tree(interrupted.with_name(".out.partial")) == kept
    done = cli(folder, *ARGUMENTS, "-o", interrupted, "--resume")
    assert done.returncode == 0, done.stderr


def test_a_changed_input_is_not_the_interrupted_one(folder, interrupted):
    weights = folder / "e1" / "model.safetensors"
    before = weights.read_bytes()
    try:
        weights.write_bytes(before[:-2] + b"\x00\x3c")
        with pytest.raises(RequestError, match="another recipe, input, option or version"):
            rlmerge.merge(
                yaml.safe_load((folder / "recipe.yaml").read_text()),
                interrupted, rounding="stochastic", shard_size=100_000, seed=5, resume=True,
            )  # fmt: skip
    finally:
        weights.write_bytes(before)


def test_resuming_where_nothing_was_begun_is_a_merge(folder, tmp_path):
    done = cli(folder, *ARGUMENTS, "-o", tmp_path / "out", "--resume", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["resumed"] == 0
