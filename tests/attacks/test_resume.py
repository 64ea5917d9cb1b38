"""Journals with valid checksums and odd content: a resumed merge believes them or not, and ends with the same bytes."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
import xxhash

from rlmerge.cli.app import run
from support.attacks.merging import MERGE
from support.family import tree

ENTRY = {"tensor": "model.norm.weight", "shard": "model-00001-of-00005.safetensors", "xxh3": "0" * 16, "stats": {}}


def signed(content) -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return xxhash.xxh3_64_hexdigest(text).encode() + b" " + text + b"\n"


SMALL = ("--shard-size", "60B")


@pytest.fixture(scope="module")
def stopped(models, memory):
    """The models, an undisturbed merge of them, and what one leaves that fails at its last shard."""
    folder = shutil.copytree(models, Path(tempfile.mkdtemp(dir=memory)) / "family")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run([*MERGE, *SMALL, "--no-cache", "-o", "undisturbed"]) == 0
        real = os.pwrite

        def fails(fd, data, offset):
            if "00005-of-" in str(Path(f"/proc/self/fd/{fd}").readlink()):
                raise OSError(5, "Input/output error")
            return real(fd, data, offset)

        patch.setattr(os, "pwrite", fails)
        assert run([*MERGE, *SMALL, "--no-cache"]) == 1
    return folder


@pytest.fixture
def interrupted(stopped, tmp_path, monkeypatch):
    """The journal of an interrupted merge, in a directory of one's own, which is the working directory."""
    monkeypatch.chdir(shutil.copytree(stopped, tmp_path / "family"))
    return tmp_path / "family" / ".out.partial" / "journal.jsonl"


@pytest.fixture
def resume(interrupted, merge):
    """Resume the interrupted merge; what it wrote is compared with the undisturbed one."""

    def call(*more):
        done = merge(*SMALL, "--resume", "--no-cache", *more)
        if done.code == 0:
            assert shards("out") == shards("undisturbed")
        return done

    return call


def shards(folder):
    return {name: data for name, data in tree(Path(folder)).items() if name.endswith(".safetensors")}


ODD_LINES = [
    None, True, 7, 1e999, "x", [], {}, [[ENTRY]], {"plan": "x"}, {"plan": None}, ENTRY | {"more": 1},
    {key: value for key, value in ENTRY.items() if key != "stats"}, ENTRY | {"tensor": 7}, ENTRY | {"tensor": None},
    ENTRY | {"tensor": "unknown"}, ENTRY | {"tensor": "\x1b[2J"}, ENTRY | {"tensor": "x" * 100_000},
    ENTRY | {"shard": 7}, ENTRY | {"shard": "../../base/model.safetensors"}, ENTRY | {"shard": "/etc/passwd"},
    ENTRY | {"shard": ""}, ENTRY | {"shard": "journal.jsonl"}, ENTRY | {"shard": "."}, ENTRY | {"xxh3": None},
    ENTRY | {"xxh3": 7}, ENTRY | {"xxh3": ""}, ENTRY | {"stats": None}, ENTRY | {"stats": []}, ENTRY | {"stats": "x"},
    b"", b"{", b"[" * 50_000, b"\xff", b"9" * 5000, b'"\\ud800"', b'{"a": 1, "a": 2}',
]  # fmt: skip


def test_a_journal_that_nobody_touched_is_believed(resume):
    assert json.loads(resume("--format", "json").out)["resumed"] == 4


@pytest.mark.parametrize("number", range(len(ODD_LINES)))
def test_an_odd_line(interrupted, resume, number):
    octets = interrupted.read_bytes().splitlines(keepends=True)
    interrupted.write_bytes(b"".join([*octets[:2], signed(ODD_LINES[number]), *octets[2:]]))
    assert resume().code == 0
    assert tree(Path("out")) == tree(Path("undisturbed"))


@pytest.mark.parametrize("number", range(len(ODD_LINES)))
def test_an_odd_first_line(interrupted, resume, number):
    interrupted.write_bytes(signed(ODD_LINES[number]) + interrupted.read_bytes())
    before = tree(Path())
    done = resume()
    if ODD_LINES[number] == {"plan": "x"}:
        assert done.code == 0, "another plan, of which nothing is finished"
    else:
        assert done.code == 2 and tree(Path()) == before


SHARE = {"counts": [1] * 10, "sums": [0.5] * 10, "notes": []}
ODD_STATS = [
    {"counts": None}, {"counts": []}, {"counts": [1] * 9}, {"counts": ["1"] * 10}, {"counts": [1.5] * 10},
    {"counts": [True] * 10}, {"counts": [-1] * 10}, {"counts": [2**63] * 10}, {"counts": [10**400] * 10},
    {"counts": 7},
    {"counts": {"a": 1}}, {"counts": [[1]] * 10}, {"sums": None}, {"sums": []}, {"sums": [1.0] * 9},
    {"sums": ["x"] * 10},
    {"sums": [None] * 10}, {"sums": [10**400] * 10}, {"sums": "x" * 10}, {"notes": None}, {"notes": 7},
    {"notes": [[1]]}, {"notes": [{}]}, {"notes": {"a": 1}}, {"notes": "text"}, {"report": []}, {"report": 7},
    {"report": {"x": None}}, {"report": {"x": []}}, {"report": {"x": [1, 2]}}, {"report": {"x": ["a", "b", "c"]}},
    {"report": {"x": [-1, 1, 0.5]}}, {"report": {"x": [1e300, 1e-300, 50]}}, {"report": {"{0.__class__}": [1, 1, 1]}},
    {"report": {"{9}": [1, 1, 1]}}, {"report": {"{": [1, 1, 1]}}, {"report": {"{0:>99999999999}": [1, 1, 1]}},
    {"report": {"x": [10**400, 1, 1]}}, {"report": {"x": [1, 1, None]}}, {"more": 1},
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(ODD_STATS)))
def test_an_odd_account_of_a_tensor_whose_bytes_are_right(interrupted, resume, number):
    plan, *entries = [json.loads(line.split(b" ", 1)[1]) for line in interrupted.read_bytes().splitlines()]
    forged = [entry | {"stats": {**SHARE, **ODD_STATS[number]}} for entry in entries]
    interrupted.write_bytes(b"".join(map(signed, [plan, *forged])))
    assert resume().code == 0


@pytest.mark.parametrize("kind", ["pipe", "directory", "link", "loop", "gone"])
@pytest.mark.parametrize("name", ["journal.jsonl", "model/model-00001-of-00005.safetensors", "model"])
def test_what_is_left_is_no_ordinary_file(tmp_path, interrupted, resume, name, kind):
    place = interrupted.parent / name
    place.rename(tmp_path / "kept")
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "directory":
        place.mkdir()
    elif kind == "link":
        place.symlink_to(tmp_path / "kept")
    elif kind == "loop":
        place.symlink_to(place)
    before = tree(Path("base")), tree(tmp_path / "kept")
    assert resume().code == (2 if name == "journal.jsonl" else 0)
    assert (tree(Path("base")), tree(tmp_path / "kept")) == before
