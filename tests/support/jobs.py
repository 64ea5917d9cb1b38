"""Jobs for the study's pool that need no models; in a module of their own, so that fresh processes find them."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlmerge.errors import RequestError


@dataclass(frozen=True)
class Job:
    """Squares ``number`` and leaves the file ``ran-<name>`` with its process id; some names misbehave."""

    folder: Path
    name: str
    number: int

    @property
    def label(self) -> str:
        return self.name

    @property
    def identity(self) -> dict[str, Any]:
        return {"number": self.number}

    @property
    def cost(self) -> int:
        return self.number

    def run(self) -> dict[str, Any]:
        (self.folder / f"ran-{self.name}").write_text(str(os.getpid()))
        if self.name == "wrong":
            raise RequestError("this cannot be done", where="here", hint="Do that.")
        if self.name == "dies":
            os._exit(9)
        if self.name == "sleeps":
            time.sleep(600)
        return {"square": self.number**2, "threads": os.environ.get("OMP_NUM_THREADS")}
