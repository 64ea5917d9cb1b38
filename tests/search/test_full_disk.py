"""A disk that fills up in a search whose candidates are written to it: a real file system of six megabytes."""

import sys
from pathlib import Path

import numpy as np
import pytest

import rlmerge
from rlmerge.errors import RunError
from support.disks import small_disk
from support.models import write_model

SEARCH = {
    "merge_method": "task_arithmetic",
    "base_model": "base",
    "models": [{"model": "e0", "parameters": {"weight": {"low": 0.2, "high": 1.0}}}, {"model": "e1"}],
    "tune": {"objective": "proxy:retention", "trials": 5, "round": 2},
}
"""With a hook, as here, candidates are directories."""

FILL = """
import sys
if "trial-00001" in sys.argv[1]:
    with open("disk/other", "wb") as other:
        try:
            other.write(bytes(8_000_000))
        except OSError:
            pass
"""


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk", 6) as folder:
        yield folder


@pytest.fixture
def models(tmp_path, monkeypatch):
    """Of 800 kB each."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    base = {f"model.layers.{k}.w": rng.standard_normal((400, 500)) for k in range(2)}
    for name in ("base", "e0", "e1"):
        write_model(tmp_path / name, {n: w + (name != "base") * 0.01 for n, w in base.items()}, "bfloat16")


def finished(disk):
    (disk / "other").unlink()
    found = rlmerge.tune(SEARCH, "disk/found", hook=f"{sys.executable} -c pass {{model}}")
    assert [trial.state for trial in found.trials] == ["complete"] * 5
    assert list((disk / "found" / "candidates").glob("trial-*")) == []


def test_a_study_that_cannot_be_kept_goes_on_once_there_is_room(models, disk):
    Path("fill.py").write_text(FILL)
    with pytest.raises(RunError, match=r"the study cannot be kept .*full") as error:
        rlmerge.tune(SEARCH, "disk/found", hook=f"{sys.executable} fill.py {{model}}")
    assert "run the same command again" in str(error.value)
    finished(disk)


def test_a_candidate_that_cannot_be_written_ends_the_call_and_no_trial(models, disk):
    """There is room for the study, but for no model."""
    (disk / "other").write_bytes(bytes(5_500_000))
    with pytest.raises(RunError, match="the disk is full") as error:
        rlmerge.tune(SEARCH, "disk/found", hook=f"{sys.executable} -c pass {{model}}")
    assert "run the same command again" in str(error.value)
    finished(disk)
