"""Command lines run as a user runs them: real processes with separate streams."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

# A shell ignores SIGINT for jobs in the background and nohup SIGHUP, which children inherit.
_MAIN = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from rlmerge.cli import main
main()
"""


def start(*arguments: object, **options: Any) -> subprocess.Popen[Any]:
    """`rlmerge ARGUMENTS`, started with the options of ``subprocess.Popen``; it heeds signals as in a terminal."""
    return subprocess.Popen([sys.executable, "-c", _MAIN, *map(str, arguments)], **options)


def run_rlmerge(*arguments: object, cwd: Any = None, timeout: float = 300, **environment: str) -> Any:
    """Run `rlmerge ARGUMENTS` in ``cwd``; the finished process with its stdout and stderr."""
    return subprocess.run(
        [sys.executable, "-c", _MAIN, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"COLUMNS": "200"} | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Return once ``condition()`` holds; AssertionError if it does not within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(pid: int | str) -> bool:
    """Whether a process is there and no zombie."""
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return done.stdout.strip()[:1] not in ("", "Z")
