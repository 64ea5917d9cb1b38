"""Where the output goes: any name and any place, and whatever is there already."""

import os
import shutil
from pathlib import Path

import pytest

import rlmerge
from rlmerge.checkpoint.journal import Journal
from rlmerge.checkpoint.target import partial_path
from support.family import tree

NAMES = {
    **{f"{length} bytes": "x" * length for length in (1, 200, *range(243, 258), 1000, 5000)},
    **{f"{length} accents": "é" * length for length in (119, 120, 127, 128)},
    "no text": os.fsdecode(b"\xff\xfe"),
    "no text, long": os.fsdecode(b"\xff" * 250),
    "a line break": "a\nb",
    "an escape": "a\x1b[31mb\x07",
    "a turn": "a\u202eb",
    "blanks": "  a  ",
    "quotes": "a'\"b",
    "markup": "<b>|`$(touch pwned)`",
    "dots": "...",
    "below": "a/b/c/d",
    "a long path": "/".join(["x" * 250] * 20),
    "above": "../above",
    "here": ".",
    "parent": "..",
    "root": "/",
    "empty": "",
    "an input": "base",
    "in an input": "base/out",
    "a file": "file",
    "below a file": "file/out",
    "a loop": "loop",
    "below a loop": "loop/out",
    "a dangling link": "dangling",
    "a device": "/dev/null",
    "below a device": "/dev/null/out",
    "below proc": "/proc/1/out",
    "a pipe": "pipe",
    "nobody's home": "~nobody-of-this-name/out",
}


@pytest.mark.parametrize("verb", ["merge", "plan"])
@pytest.mark.parametrize("kind", NAMES)
def test_any_name_works_or_is_refused_before_the_work(family, command, kind, verb):
    name = NAMES[kind]
    (family / "file").write_text("precious")
    (family / "loop").symlink_to("loop")
    (family / "dangling").symlink_to("absent")
    os.mkfifo(family / "pipe")
    before = tree(family)
    done = command(verb, "--method", "ties", "-p", "density=0.5", "--base", "base", "e0", "e1", "-o", name)
    if done.code == 0 and verb == "merge":
        assert rlmerge.verify(Path(name)).ok
        assert not os.path.lexists(partial_path(Path(name).resolve()))
        shutil.rmtree(name)
    else:
        assert done.code in (0, 2)
        assert tree(family) == before


def test_the_home_directory_is_expanded(family, command, monkeypatch):
    monkeypatch.setenv("HOME", str(family / "home"))
    (family / "home").mkdir()
    arguments = ("--method", "ties", "-p", "density=0.5", "--base", "base", "e0", "e1")
    assert command("merge", *arguments, "--out=~/merged").code == 0
    assert rlmerge.verify(family / "home" / "merged").ok
    assert not (family / "~").exists()


def test_a_place_that_may_not_be_written(family, merge, monkeypatch):
    """As somebody who is not root sees it."""
    if os.geteuid():
        (family / "closed").mkdir(mode=0o500)
    else:
        (family / "closed").mkdir()
        monkeypatch.setattr(os, "access", lambda *_, **__: False)
    assert merge("-o", "closed/out").code == 2
    assert list((family / "closed").iterdir()) == []


STATES = {
    "a thesis": {"thesis.tex": b"precious"},
    "a model without a journal": {"model/config.json": b"{}", "model/model.safetensors": b"precious"},
    "an empty journal beside something": {"journal.jsonl": b"", "model/x": b"precious"},
    "a torn journal beside something": {"journal.jsonl": b'0123456789abcdef {"pla', "model/x": b"precious"},
}


@pytest.mark.parametrize("options", [(), ("--resume",), ("--force",), ("--resume", "--force")])
@pytest.mark.parametrize("state", STATES)
def test_what_is_not_ours_is_never_deleted(family, command, state, options):
    for name, content in STATES[state].items():
        (family / ".mine.partial" / name).parent.mkdir(parents=True, exist_ok=True)
        (family / ".mine.partial" / name).write_bytes(content)
    before = tree(family)
    flags = ("--method", "ties", "-p", "density=0.5", "--base", "base", "e0", "e1", "-o", "mine")
    done = command("merge", *flags, *options)
    assert done.code == 2 and "is in the way" in done.err
    assert tree(family) == before


@pytest.mark.parametrize("kind", ["file", "pipe", "link", "loop"])
def test_the_place_of_the_partial_directory_is_taken(family, command, kind):
    place = family / ".mine.partial"
    if kind == "file":
        place.write_text("precious")
    elif kind == "pipe":
        os.mkfifo(place)
    elif kind == "link":
        place.symlink_to("base")
    else:
        place.symlink_to(place)
    before = tree(family)
    done = command("merge", "--method", "ties", "-p", "density=0.5", "--base", "base", "e0", "e1", "-o", "mine")
    assert done.code == 2 and tree(family) == before


def test_what_a_killed_run_leaves_of_ours_is_used_up(family, merge):
    """A journal of another plan without any file is nothing to lose."""
    (family / ".out.partial" / "model").mkdir(parents=True)
    Journal(family / ".out.partial", "another plan").close()
    (family / ".out.partial" / "model" / "junk").write_text("x")
    assert merge().code == 0
    assert rlmerge.verify(family / "out").ok
    assert not (family / ".out.partial").exists()
