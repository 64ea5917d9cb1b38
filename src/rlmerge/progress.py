"""How a long run tells what it is doing."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told of phases and what they get through; every call is cheap and may come from any thread."""

    def start(self, phase: str, total: int, unit: str = "") -> None:
        """A phase begins that will process ``total`` of ``unit``, bytes unless it says otherwise; 0 when unknown."""
        ...

    def advance(self, amount: int) -> None:
        """``amount`` more is done."""
        ...

    def done(self) -> None:
        """The phase is over."""
        ...

    def message(self, text: str) -> None:
        """Something worth a line."""
        ...


class Quiet:
    """A ``Progress`` that says nothing."""

    def start(self, phase: str, total: int, unit: str = "") -> None: ...

    def advance(self, amount: int) -> None: ...

    def done(self) -> None: ...

    def message(self, text: str) -> None: ...
