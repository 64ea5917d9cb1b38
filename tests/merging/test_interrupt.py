"""Merges that are interrupted, run twice at once, or lose an input on the way."""

import os
import signal
import subprocess
import sys
import time

import pytest

from support.family import cli, draw, tree
from support.models import write_model

SHAPES = {f"model.layers.{index}.w": (50, 100) for index in range(30)}
FLAGS = ["merge", "--method", "ties", "-p", "density=0.5", "--base", "base", "e0", "e1", "--shard-size", "60kB"]
SLOW = """
import os, time
write = os.pwrite
os.pwrite = lambda *arguments: (time.sleep(0.06), write(*arguments))[1]
from rlmerge.cli import main
main()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("interrupted")
    base, experts = draw(8, 2, SHAPES)
    write_model(folder / "base", base, "bfloat16")
    for k, expert in enumerate(experts):
        write_model(folder / f"e{k}", expert, "bfloat16")
    return folder


def start(folder, out):
    """A slow merge in the background, once some tensors are written."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, *FLAGS, "-o", str(out), "--quiet"],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A run in the background of a shell ignores the signal, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    journal = out.with_name(f".{out.name}.partial") / "journal.jsonl"
    while process.poll() is None and not (journal.exists() and journal.stat().st_size > 1000):
        time.sleep(0.005)
    return process


def test_ctrl_c_keeps_the_work(folder, tmp_path):
    process = start(folder, tmp_path / "out")
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout) == (130, "")
    assert stderr.strip() == "error: interrupted\n  Run the same command with --resume to continue."
    assert not (tmp_path / "out").exists()
    done = cli(folder, *FLAGS, "-o", tmp_path / "out", "--resume", "--format", "json")
    assert '"resumed": 0' not in done.stdout
    cli(folder, *FLAGS, "-o", tmp_path / "fresh")
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


def test_only_sealing_is_left(folder, tmp_path):
    """Killed after the last tensor: there is nothing to merge, and the directory is completed."""
    run = "__import__('importlib').import_module('rlmerge.merging.run')"
    dies = f"merging = {run}\nmerging.write_side_files = lambda *_: os._exit(9)\nmain()"
    killed = SLOW.replace("0.06", "0").replace("main()", dies)
    command = [sys.executable, "-c", killed, *FLAGS, "-o", str(tmp_path / "out"), "--quiet"]
    assert subprocess.run(command, cwd=folder).returncode == 9
    done = cli(folder, *FLAGS, "-o", tmp_path / "out", "--resume", "--format", "json")
    assert done.returncode == 0, done.stdout
    assert '"resumed": 30' in done.stdout
    cli(folder, *FLAGS, "-o", tmp_path / "fresh")
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


def test_two_merges_into_one_directory(folder, tmp_path):
    first = start(folder, tmp_path / "out")
    second = cli(folder, *FLAGS, "-o", tmp_path / "out")
    assert second.returncode == 2
    assert f"{tmp_path / '.out.partial'}: another process is writing there" in second.stderr
    assert first.wait(timeout=60) == 0, first.stderr.read()
    cli(folder, *FLAGS, "-o", tmp_path / "fresh")
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


@pytest.mark.parametrize("change", ["truncated", "gone", "overwritten", "replaced"])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_an_input_that_changes_on_the_way(folder, tmp_path, change, name):
    """Nothing is ever sealed of two editions of an input.

    A range that is cut off between the look at it and its use, some microseconds of each tile, ends the process by
    SIGBUS: no program that maps files can tell in time.
    """
    model = folder / ("e1" if name == "model.safetensors" else "base")
    file = model / name
    kept = file.read_bytes()
    process = start(folder, tmp_path / "out")
    try:
        if change == "truncated":
            os.truncate(file, len(kept) // 2)
        elif change == "gone":
            file.unlink()
        elif change == "overwritten":
            with file.open("r+b") as handle:
                handle.seek(-1, os.SEEK_END)
                handle.write(b"\n" if name == "config.json" else b"\1")
        else:
            (tmp_path / "other").write_bytes(kept)
            (tmp_path / "other").replace(file)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        file.write_bytes(kept)
    assert not (tmp_path / "out").exists()
    if process.returncode != -signal.SIGBUS:
        assert (process.returncode, stdout) == (1, "")
        assert f"error: {file}: " in stderr
        assert "has changed since it was opened" in stderr or "is no longer there" in stderr
