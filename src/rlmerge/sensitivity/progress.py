"""How a measurement tells what it is doing."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told how far a measurement is; one phase after the other."""

    def start(self, phase: str, total: int, /) -> None: ...
    def advance(self, done: int, /) -> None: ...
