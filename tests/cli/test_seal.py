import json

import pytest

from rlmerge.cli.app import run
from support.models import write_model


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Run a command line on three small models; (exit code, stdout, stderr)."""
    for name, value in {"base": 0.0, "a": 1.0, "b": 3.0}.items():
        write_model(tmp_path / name, {f"w{k}": [value + k * (value > 0)] * 8 for k in range(4)})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def call(*words):
        code = run(list(words))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


ASKED = ("--method", "task_arithmetic", "--base", "base", "a", "b", "-o", "out", "--shard-size", "64B", "--quiet")


def test_two_shares_and_a_seal(command):
    code, said, _ = command("merge", *ASKED, "--shards", "1/2")
    assert code == 0 and said.startswith("share 1/2 of out: 1 of 2 shards, 2 tensors, ")
    assert "rlmerge seal … -o out" in said
    code, said, _ = command("merge", *ASKED, "--shards", "2/2", "--format", "json")
    assert code == 0 and json.loads(said)["share"] == "2/2"
    code, said, _ = command("seal", *ASKED)
    assert code == 0 and "4 tensors (4 from before)" in said
    assert command("verify", "out")[0] == 0


def test_a_share_is_missing(command):
    assert command("merge", *ASKED, "--shards", "2/2")[0] == 0
    code, _, said = command("seal", *ASKED)
    assert code == 2 and "those of share 1/2" in said


@pytest.mark.parametrize("more", [["--shards", "3/2"], ["--shards", "x"], ["--shards", "1/2", "--as", "adapter"]])
def test_what_cannot_be_shared(command, more, tmp_path):
    assert command("merge", *ASKED, *more)[0] == 2
    assert not list(tmp_path.glob(".out*"))
