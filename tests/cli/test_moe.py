import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import rlmerge
from rlmerge.cli.app import run
from rlmerge.cli.moe import command

pytest.importorskip("torch")
from support.dense import make_dense

TEXT = "base_model: base\ngate_mode: random\nexperts:\n- source_model: base\n- source_model: base\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_dense(tmp_path / "base")
    Path("moe.yaml").write_text(TEXT)
    return tmp_path


def test_for_people(folder):
    done = CliRunner().invoke(command, ["moe.yaml", "-o", "out", "--quiet"])
    assert done.exit_code == 0, done.output
    assert "2 experts on base → out" in done.output
    assert "model    MixtralForCausalLM: 2 experts a token" in done.output
    assert rlmerge.verify("out").ok


def test_for_programs(folder):
    done = CliRunner().invoke(command, ["moe.yaml", "-o", "out", "--quiet", "--format", "json", "--seed", "7"])
    found = json.loads(done.stdout)
    assert (found["experts"], found["gate_mode"], found["shared"]) == (["base", "base"], "random", [])


def test_from_python(folder):
    assert rlmerge.assemble_moe(TEXT, "out").architecture == "MixtralForCausalLM"


def test_a_wrong_configuration_is_exit_code_2(folder, capsys):
    Path("moe.yaml").write_text(TEXT.replace("random", "randm"))
    assert run(["moe", "moe.yaml", "-o", "out"]) == 2
    assert "Did you mean 'random'?" in capsys.readouterr().err
    assert not Path("out").exists()


def test_merge_points_here(folder, capsys):
    assert run(["merge", "moe.yaml", "-o", "out"]) == 2
    assert "rlmerge moe moe.yaml -o OUT" in capsys.readouterr().err
