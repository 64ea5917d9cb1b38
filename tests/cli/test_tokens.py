import json

import pytest
from click.testing import CliRunner

from rlmerge.cli.tokens import _FILLS, command
from rlmerge.transplant import FILLS
from support.tokenizers import write_tables, write_tokenizer


@pytest.fixture
def pair(tmp_path, monkeypatch):
    write_tokenizer(write_tables(tmp_path / "model", 3), ["a", "b", "c"])
    write_tokenizer(write_tables(tmp_path / "donor", 3), ["c", "a", "n"])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_for_people(pair):
    done = CliRunner().invoke(command, ["model", "donor", "-o", "out", "--quiet", "--fill", "mean"])
    assert done.exit_code == 0, done.output
    assert "model with the tokenizer of donor → out" in done.output
    assert "tokens   3 in 3 rows: 2 kept, 1 by mean" in done.output
    assert (pair / "out" / "MANIFEST.json").exists()


def test_for_programs(pair):
    done = CliRunner().invoke(command, ["model", "donor", "-o", "out", "--quiet", "--format", "json"])
    found = json.loads(done.stdout)
    assert (found["shared"], found["made"], found["fill"]) == (2, 1, "omp")


def test_help_and_fills():
    assert _FILLS == FILLS
    assert "DONOR" in CliRunner().invoke(command, ["--help"]).output
