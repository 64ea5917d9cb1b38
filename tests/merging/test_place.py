"""Where an output may go, and how much fits there."""

import os
import subprocess

import pytest

from rlmerge.checkpoint import open_checkpoint
from rlmerge.errors import RequestError
from rlmerge.merging.place import check_place, free_space
from support.models import write_model


@pytest.fixture
def model(tmp_path):
    return open_checkpoint(write_model(tmp_path / "models" / "base", {"w": [1.0]}))


@pytest.mark.parametrize("out", ["out", "models/out", "models/base2", "a/b/c", "models/base/../out"])
def test_places_beside_the_inputs_are_fine(tmp_path, model, out):
    check_place(tmp_path / out, [model], force=False)
    check_place(tmp_path / out, [model], force=True)
    assert not (tmp_path / out).exists()


@pytest.mark.parametrize(
    ("out", "what"),
    [
        ("models/base", "is .*an input"),
        ("models/base/sub/out", "lies inside .*an input"),
        ("models/../models/base/out", "lies inside"),
        ("models", "holds .*an input"),
        ("alias/base/out", "lies inside"),
        ("alias", "holds|is not a directory"),
    ],
)
def test_places_that_would_touch_an_input(tmp_path, model, out, what):
    (tmp_path / "alias").symlink_to(tmp_path / "models")
    with pytest.raises(RequestError, match=what):
        check_place(tmp_path / out, [model], force=True)


def test_a_place_that_exists_needs_force(tmp_path, model):
    out = write_model(tmp_path / "out", {"w": [1.0]})
    with pytest.raises(RequestError, match="the output directory exists"):
        check_place(out, [model], force=False)
    check_place(out, [model], force=True)


def test_the_space_an_interrupted_run_holds_counts_as_free(tmp_path, monkeypatch):
    """A resumed run on a disk that its own shards fill is not refused."""
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    assert free_space(tmp_path / "out") == 1000
    assert free_space(tmp_path / "not" / "yet" / "out") == 1000
    partial = tmp_path / ".out.partial"
    partial.mkdir()
    (partial / "model.safetensors").write_bytes(os.urandom(100_000))
    held = int(subprocess.run(["du", "-B1", partial / "model.safetensors"], capture_output=True).stdout.split()[0])
    assert free_space(tmp_path / "out") == 1000 + held >= 100_000
