"""Tells a running server of every candidate before it is scored: a command, or a URL that gets a POST."""

from __future__ import annotations

import json
import shlex
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

from rlmerge.errors import RequestError, RunError

TIMEOUT = 1800.0
"""Seconds a server may take to load a candidate."""

_SHOWN = 400


class Hook:
    """``command`` is a URL, or a command line in which ``{model}`` becomes the candidate's directory.

    A URL gets a POST of ``{"model": DIRECTORY}`` and must answer with a status below 300. A command is split as a shell
    would, run without one, and must exit with 0.
    """

    def __init__(self, command: str) -> None:
        self.command = command
        self.is_url = command.startswith(("http://", "https://"))
        try:
            self.words = [] if self.is_url else shlex.split(command)
        except ValueError as error:
            raise RequestError(
                f"cannot be read as a command line ({error})", where="--hook", hint="Check its quotes."
            ) from None
        if not self.is_url and not any("{model}" in word for word in self.words):
            hint = "Write --hook 'reload.sh {model}', or a URL."
            raise RequestError("the hook does not name the model", where="--hook", hint=hint)

    def call(self, directory: Path) -> None:
        """Hand over one candidate, and wait until it is loaded. RunError when that fails."""
        if self.is_url:
            self._post(directory)
        else:
            self._run(directory)

    def _post(self, directory: Path) -> None:
        body = json.dumps({"model": str(directory.absolute())}).encode()
        request = urllib.request.Request(self.command, body, {"Content-Type": "application/json"}, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT):
                pass
        except (urllib.error.URLError, OSError, ValueError) as error:
            raise RunError(f"the hook failed ({error})", where=self.command) from error

    def _run(self, directory: Path) -> None:
        words = [word.replace("{model}", str(directory.absolute())) for word in self.words]
        try:
            done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=TIMEOUT, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RunError(f"the hook failed ({error})", where=self.command) from error
        if done.returncode:
            said = (done.stderr or done.stdout).strip()[-_SHOWN:]
            raise RunError(f"the hook ended with exit code {done.returncode}: {said}", where=self.command)
