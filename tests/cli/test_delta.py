import json

import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file

from rlmerge.cli.delta import command
from rlmerge.errors import CheckpointError, RequestError


@pytest.fixture
def run(models, monkeypatch):
    """Run `rlmerge delta ARGUMENTS` beside the models; an error of ours is raised as it is."""
    monkeypatch.chdir(models)

    def call(*arguments, code=0):
        result = CliRunner().invoke(command, [*map(str, arguments), "--quiet"], standalone_mode=False)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        found = result.return_value if isinstance(result.return_value, int) else result.exit_code
        assert found == code, result.output
        return result.output

    return call


def test_an_expert_goes_and_comes_back(run, models):
    said = run("extract", "--base", "base", "math", "-o", "delta")
    assert said.startswith("delta: 5.0 % of 20 elements changed; ")
    assert run("verify", "delta", "--base", "base") == "delta: ok (2 tensors, 80 B)\n"
    assert run("apply", "delta", "--base", "base", "-o", "out").startswith("out: 2 tensors, ")
    assert (models / "out" / "model.safetensors").read_bytes() != (models / "base" / "model.safetensors").read_bytes()
    one, other = (load_file(models / name / "model.safetensors") for name in ("out", "math"))
    assert {name: x.tobytes() for name, x in one.items()} == {name: x.tobytes() for name, x in other.items()}


def test_json(run):
    found = json.loads(run("extract", "--base", "base", "math", "-o", "delta", "--format", "json"))
    assert (found["tensors"], found["elements"], found["changed"], found["expert_bytes"]) == (2, 20, 1, 80)
    assert found["dense"] == []
    assert json.loads(run("verify", "delta", "--base", "base", "--format", "json"))["ok"] is True
    assert json.loads(run("apply", "delta", "--base", "base", "-o", "out", "--format", "json"))["tensors"] == 2


def test_a_damaged_delta_is_exit_1(run, models):
    run("extract", "--base", "base", "math", "-o", "delta")
    file = models / "delta" / "delta.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    said = run("verify", "delta", "--base", "base", code=1)
    assert said.startswith("delta: 1 problem(s) in 2 tensors, 80 B\n- tensor 'model.layers.0.w' does not have")


def test_the_base_must_be_known_and_right(run):
    run("extract", "--base", "base", "math", "-o", "delta")
    with pytest.raises(Exception, match="delta names no base; give it with --base"):
        run("apply", "delta", "-o", "out")
    with pytest.raises(CheckpointError, match="is a delta of another model than code"):
        run("apply", "delta", "--base", "code", "-o", "out")


@pytest.mark.parametrize("out", ["base", "math", "base/inside", "."])
def test_an_input_is_never_replaced(run, out):
    with pytest.raises(RequestError, match="an input of the merge"):
        run("extract", "--base", "base", "math", "-o", out, "--force")
