"""Command lines run as a user runs them: real processes with separate streams."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

PROGRAM = (sys.executable, "-c", "from rlmerge.cli import main; main()")


def run_rlmerge(*arguments: object, cwd: Any = None, timeout: float = 300, **environment: str) -> Any:
    """Run `rlmerge ARGUMENTS` in ``cwd``; the finished process with its stdout and stderr."""
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"COLUMNS": "200"} | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def heed_interrupts() -> None:
    """For ``preexec_fn``: a shell starts its background jobs deaf to SIGINT, and their children would inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
