"""Every system call of a merge fails once: the run ends with a message, and the next one with the right bytes."""

import errno
import os
import random
import shutil
import tempfile
from pathlib import Path

import pytest

import rlmerge
from rlmerge.cli.app import run
from support.attacks.faults import CODES, faults
from support.attacks.merging import MERGE
from support.family import tree

ARGUMENTS = [*MERGE, "--shard-size", "100B", "--no-cache", "--quiet", "--workers", "1"]
SAMPLE = 40
"""Calls that fail here; bench/attack.py takes all of them, each with every error."""


@pytest.fixture(scope="module")
def undisturbed(models, memory):
    """The models beside a merge of them, and the names of the calls that it makes."""
    folder = shutil.copytree(models, Path(tempfile.mkdtemp(dir=memory)) / "family")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run(ARGUMENTS)  # Imports and compiled code are there from now on.
        Path("out").rename("undisturbed")
        with faults(folder) as counted:
            assert run(ARGUMENTS) == 0
        shutil.rmtree("out")
    return folder, counted.names


def test_the_calls_are_seen(undisturbed):
    _, names = undisturbed
    expected = {"open", "preadv", "pwrite", "write", "fsync", "mkdir", "rename", "replace", "flock", "rmdir", "stat"}
    assert expected <= set(names)


@pytest.mark.parametrize("number", range(SAMPLE))
def test_a_call_that_fails(undisturbed, command, tmp_path, monkeypatch, number):
    folder, names = undisturbed
    monkeypatch.chdir(shutil.copytree(folder, tmp_path / "family"))
    fails(command, tmp_path / "family", number * len(names) // SAMPLE, random.Random(number).choice(CODES))


def fails(command, folder, number, code):
    """Merge in the working directory ``folder`` while call ``number`` fails, then again."""
    with faults(folder, number, code):
        done = command(*ARGUMENTS)
    out, expected = folder / "out", tree(folder / "undisturbed")
    if done.code == 0 or out.exists():
        assert tree(out) == expected
    if done.code == 2:
        assert not out.exists() and not (folder / ".out.partial").exists()
    if not out.exists():
        assert command(*ARGUMENTS, "--resume").code == 0
        assert tree(out) == expected
    assert rlmerge.verify(out).ok


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_every_fsync(undisturbed, command, tmp_path, monkeypatch, code):
    folder, names = undisturbed
    for number in [number for number, name in enumerate(names) if name == "fsync"][::3]:
        monkeypatch.chdir(shutil.copytree(folder, tmp_path / str(number)))
        fails(command, Path.cwd(), number, code)
    assert os.strerror(code)
