from __future__ import annotations

import subprocess
import sys

import pytest

from rlmerge.errors import RequestError
from rlmerge.extras import require
from rlmerge.language.data import read_data
from rlmerge.sensitivity import measure


def test_a_present_module_is_returned():
    import json

    assert require("json") is json


@pytest.mark.parametrize("name", ["torch", "transformers"])
def test_measuring_without_an_extra_says_what_to_install(monkeypatch, tmp_path, name):
    pytest.importorskip("torch")
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RequestError, match=rf"'{name}', which is not installed\n  pip install 'rlmerge\[torch\]'"):
        measure(tmp_path, "data.txt", tmp_path / "out")


def test_reasoning_gym_is_asked_for_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(RequestError, match=r"pip install 'rlmerge\[gym\]'"):
        read_data("reasoning-gym:chain_sum", 1, 0)


def test_reading_and_the_command_line_do_not_import_torch():
    code = "import sys, rlmerge.checkpoint.sensitivity, rlmerge.cli.sensitivity; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
