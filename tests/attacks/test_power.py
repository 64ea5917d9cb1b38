"""The power fails after any call of a merge: what bears the final name is whole, and a resumed merge ends with the same
bytes."""

import random
import shutil
import tempfile
from pathlib import Path

import pytest

import rlmerge
from rlmerge.cli.app import run
from support.attacks.merging import MERGE
from support.attacks.power import Call, Recording, recorded
from support.family import tree

ARGUMENTS = [*MERGE, "--shard-size", "100B", "--no-cache", "--quiet", "--workers", "1"]
SAMPLE = 8
"""Cuts of each kind at any call; bench/attack.py tries many at each."""


def test_what_a_cut_leaves():
    """By hand: a file that was written and synced in a directory that was not, then renamed."""
    recording = Recording(0, {0: {"old": 1}, 1: b"abc"}, [
        Call("create", (0,), ("new", 2, "file")),
        Call("data", (2,), (0, b"xyz")),
        Call("sync", (2,)),
        Call("rename", (0, 0), ("new", "old")),
        Call("sync", (0,)),
        Call("data", (2,), (1, b"_")),
    ])  # fmt: skip
    rng = random.Random(0)
    assert recording.certain(4) == {1}
    assert recording.state(2, 0.0, rng)[0] == {"old": 1}
    assert recording.state(2, 1.0, rng)[2] == b"xyz"
    assert recording.state(4, 0.0, rng)[0] == {"old": 1}, "the directory was not synced"
    assert recording.state(5, 0.0, rng)[0] == {"old": 2}
    assert recording.state(6, 0.0, rng)[2] == b"xyz"
    assert recording.state(6, 1.0, rng)[2] == b"x_z"


@pytest.fixture(scope="module", params=["fresh", "replaced"])
def run_recorded(models, memory, request):
    """The calls of a merge, into a new directory or over an old model; and what it writes."""
    folder = shutil.copytree(models, Path(tempfile.mkdtemp(dir=memory)) / "family")
    force = ["--force"] if request.param == "replaced" else []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        if force:
            shutil.copytree("base", "out")
        with recorded(folder) as recording:
            assert run([*ARGUMENTS, *force]) == 0
        return recording, tree(folder / "out"), force


def moments(recording, tries):
    """Numbers of calls after which the power is cut: some of all, and every one around that which publishes."""
    calls = recording.calls
    published = next(n for n, call in enumerate(calls) if call.kind in ("rename", "exchange") and "out" in call.details)
    evenly = [number * (len(calls) + 1) // SAMPLE for number in range(SAMPLE)]
    return [*evenly, *[*range(published, published + 3), len(calls)] * tries]


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_a_cut_after_any_call(run_recorded, command, tmp_path, monkeypatch, chance):
    recording, expected, force = run_recorded
    assert len(recording.calls) > 50
    rng = random.Random(0)
    for number, count in enumerate(moments(recording, 1 if chance in (0.0, 1.0) else 5)):
        folder = tmp_path / str(number)
        recording.write(recording.state(count, chance, rng), folder)
        monkeypatch.chdir(folder)
        old = tree(folder / "base")
        out = folder / "out"
        if out.exists():
            assert tree(out) in ([expected, old] if force else [expected])
        # Once the run has ended, nothing may be lost any more.
        assert count < len(recording.calls) or tree(out) == expected
        if not out.exists() or tree(out) != expected:
            assert command(*ARGUMENTS, *force, "--resume").code == 0
        assert tree(out) == expected
        assert rlmerge.verify(out).ok
        assert command(*ARGUMENTS, "--force").code == 0
        assert not (folder / ".out.partial").exists()
