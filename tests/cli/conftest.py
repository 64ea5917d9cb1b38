"""Command lines run as a user runs them: real processes with separate streams."""

import os
import subprocess
import sys

import pytest


@pytest.fixture
def rlmerge(tmp_path):
    """Run `rlmerge ARGUMENTS` in an empty directory; the finished process with its stdout and stderr."""

    def call(*arguments, **environment):
        return subprocess.run(
            [sys.executable, "-c", "from rlmerge.cli import main; main()", *map(str, arguments)],
            cwd=tmp_path,
            env=os.environ | {"COLUMNS": "200"} | environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return call
