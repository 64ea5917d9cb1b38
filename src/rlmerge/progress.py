"""How a long run tells what it is doing."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told of phases and bytes; every call is cheap and may come from any thread."""

    def start(self, phase: str, total_bytes: int) -> None:
        """A phase begins that will process ``total_bytes``; 0 when that says nothing."""
        ...

    def advance(self, nbytes: int) -> None:
        """``nbytes`` more are done."""
        ...

    def done(self) -> None:
        """The phase is over."""
        ...

    def message(self, text: str) -> None:
        """Something worth a line."""
        ...


class Quiet:
    """A ``Progress`` that says nothing."""

    def start(self, phase: str, total_bytes: int) -> None: ...

    def advance(self, nbytes: int) -> None: ...

    def done(self) -> None: ...

    def message(self, text: str) -> None: ...
