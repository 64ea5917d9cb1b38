"""Small models to attack, and a command line that must never show what it did not expect."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from rlmerge.cli.app import run
from support.attacks.merging import MERGE, SHAPES
from support.models import write_model

SECONDS = 20
"""After so long a command hangs; it takes some hundredths of that on an idle machine."""


@pytest.fixture(autouse=True)
def surroundings(memory, monkeypatch):
    """No network, no colours, and a cache of one's own."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(memory / "cache"))
    monkeypatch.delenv("RLMERGE_TRACEBACK", raising=False)


MEMORY = Path("/dev/shm")
"""A file system in memory, where there is one: hundreds of merges would else wait for the disk, file by file."""


@pytest.fixture(scope="session")
def memory():
    """A directory in memory for the whole session."""
    with tempfile.TemporaryDirectory(prefix="rlmerge-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.fixture
def tmp_path(memory):
    """pytest's own fixture, in memory."""
    folder = Path(tempfile.mkdtemp(dir=memory))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def models(memory):
    """A directory with ``base``, ``e0`` and ``e1``, which nobody may change."""
    rng = np.random.default_rng(0)
    base = {name: rng.standard_normal(shape, np.float32) for name, shape in SHAPES.items()}
    folder = memory / "models"
    for name in ("base", "e0", "e1"):
        changed = {n: w + (name != "base") * rng.standard_normal(w.shape, np.float32) for n, w in base.items()}
        write_model(folder / name, changed, "bfloat16")
        (folder / name / "tokenizer.json").write_text('{"model": {"vocab": {"a": 0}}}')
    return folder


@pytest.fixture
def family(tmp_path, models, monkeypatch):
    """A copy of the models, which is the working directory."""
    monkeypatch.chdir(shutil.copytree(models, tmp_path / "family"))
    return tmp_path / "family"


@dataclass(frozen=True)
class Done:
    """A finished command: exit code, stdout and stderr."""

    code: int
    out: str
    err: str


def _hangs(*_: object) -> None:
    raise AssertionError(f"hangs: nothing after {SECONDS} seconds")


@pytest.fixture
def command(capfd):
    """Run `rlmerge ARGUMENTS` in this process. Whatever it is given: it ends, with an exit code that it documents and
    messages that it meant to print, without a character that steers a terminal."""

    def call(*arguments: object) -> Done:
        capfd.readouterr()
        left = os.path.lexists(".out.partial")
        before = signal.signal(signal.SIGALRM, _hangs)
        signal.alarm(SECONDS)
        try:
            code = run([os.fspath(x) if isinstance(x, Path) else str(x) for x in arguments])
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
        out, err = capfd.readouterr()
        assert code in (0, 1, 2), err
        for text in (out, err):
            assert "Traceback" not in text and "unexpected" not in text, text
            assert all(line.isprintable() for line in text.split("\n")), ascii(text)
        assert code == 0 or (err or out)
        if code == 2 and not left:
            assert not os.path.lexists(".out.partial"), "work is left behind, but nothing was to be written"
        return Done(code, out, err)

    return call


@pytest.fixture
def merge(command):
    """Merge the family into ``out``."""
    return lambda *more: command(*MERGE, "--quiet", *more)
