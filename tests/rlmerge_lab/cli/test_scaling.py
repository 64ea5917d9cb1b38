"""`rlmerge scaling` as a click command and as a process."""

from __future__ import annotations

import json
import subprocess
import sys

from click.testing import CliRunner

from rlmerge.errors import RequestError
from rlmerge_lab.cli.scaling import command


def invoke(*arguments):
    return CliRunner().invoke(command, [*map(str, arguments)])


def test_every_study_is_a_command():
    assert list(command.commands) == ["sparsity", "law", "merge", "anatomy", "agents", "memory", "all"]


def test_human_output_goes_to_stdout_and_files_to_the_directory(tmp_path):
    done = invoke("memory", "-o", tmp_path / "out")
    assert done.exit_code == 0
    assert "not reproduced" in done.stdout and "wrote" not in done.stdout
    assert "figure-6.svg" in done.stderr
    assert (tmp_path / "out" / "figure-6.svg").exists()


def test_json_is_one_object():
    data = json.loads(invoke("memory", "--experts", "5", "--format", "json").stdout)
    assert data["study"] == "memory" and data["result"]["agents"] == 5


def test_measured_checkpoints_are_fitted():
    done = invoke("law", "--measured", "a=1B:0.5", "--measured", "b=100B:95%", "--format", "json")
    fits = {fit["name"]: fit["law"] for fit in json.loads(done.stdout)["result"]["fits"]}
    # Active shares 0.5 and 0.05 over two decades: exactly half a decade a decade.
    assert round(fits["measured"]["a"], 6) == 0.5 and round(fits["measured"]["b"], 6) == 0.5


def test_a_bad_measurement_is_a_request_error():
    assert isinstance(invoke("law", "--measured", "nonsense").exception, RequestError)


def test_all_needs_a_directory():
    done = invoke("all")
    assert done.exit_code == 2 and "--output" in done.stderr


def test_help_needs_neither_scipy_nor_matplotlib():
    code = (
        "import sys; sys.modules.update(scipy=None, matplotlib=None, numpy=None);"
        "from rlmerge_lab.cli.scaling import command; command(['--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "sparsity" in done.stdout
