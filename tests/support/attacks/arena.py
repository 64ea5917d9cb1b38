"""A place for merges that are attacked: models, an undisturbed merge of them, and a command line that is watched."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rlmerge.checkpoint import verify
from rlmerge.cli.app import run
from support.attacks.merging import MERGE, SHAPES
from support.family import tree
from support.models import write_model

ARGUMENTS = [*MERGE, "--shard-size", "100B", "--no-cache", "--quiet", "--workers", "1"]


@dataclass(frozen=True)
class Done:
    """A finished command: exit code, and what it printed."""

    code: int
    text: str


def make_models(folder: Path) -> None:
    """``base``, ``e0`` and ``e1`` in ``folder``."""
    rng = np.random.default_rng(0)
    base = {name: rng.standard_normal(shape, np.float32) for name, shape in SHAPES.items()}
    for name in ("base", "e0", "e1"):
        changed = {n: w + (name != "base") * rng.standard_normal(w.shape, np.float32) for n, w in base.items()}
        write_model(folder / name, changed, "bfloat16")
        (folder / name / "tokenizer.json").write_text('{"model": {"vocab": {"a": 0}}}')


def watched(*arguments: str) -> Done:
    """Run a command in this process; AssertionError for an exit code or a message that is none of ours."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(arguments)
    text = out.getvalue() + err.getvalue()
    assert code in (0, 1, 2), f"exit code {code}"
    assert "Traceback" not in text and "unexpected" not in text, text
    assert all(line.isprintable() for line in text.split("\n")), ascii(text)
    return Done(code, text)


class Arena:
    """The models and a merge of them in ``folder``, and copies to attack."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.models = folder / "models"
        make_models(self.models)
        os.chdir(self.models)
        watched(*ARGUMENTS)
        self.expected = tree(self.models / "out")
        shutil.rmtree(self.models / "out")

    def copy(self) -> Path:
        """A fresh copy of the models, which is then the working directory."""
        place = self.folder / "copy"
        os.chdir(self.folder)
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.models, place)
        os.chdir(place)
        return place

    def check(self, code: int, *more: str) -> str:
        """What a merge in the working directory must have left that ended with ``code``, and that it can be resumed."""
        out, partial = Path("out"), Path(".out.partial")
        if code == 0 or out.exists():
            assert tree(out) == self.expected, "other bytes"
        if code == 2:
            assert not out.exists() and not partial.exists(), "exit 2, but something was written"
        if not out.exists():
            again = watched(*ARGUMENTS, *more, "--resume")
            assert again.code == 0, again.text
            assert tree(out) == self.expected, "other bytes after a resumed run"
        assert verify(out).ok
        return f"exit {code}"
