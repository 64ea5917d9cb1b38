"""What a pickle says about objects, kept as inert records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlmerge.frozen import frozen

_MAX_DIMENSIONS = 16


@frozen(slots=True)
class Name:
    """A global that the vocabulary knows, as it calls it."""

    kind: str


@dataclass(slots=True, eq=False)
class Record:
    """What a pickle says about an object: the name of its class, its arguments and its state, none of them used."""

    kind: str
    args: tuple[Any, ...] = ()
    state: Any = None

    def field(self, name: str, position: int | None = None) -> Any:
        """An attribute by name, or where attributes or arguments are a tuple by ``position``; None if not there."""
        if isinstance(self.state, dict):
            return self.state.get(name)
        values = self.state if isinstance(self.state, tuple) else self.args
        return values[position] if position is not None and position < len(values) else None


class Malformed(Exception):
    """Why a pickle cannot be read; ``interpret`` turns it into a CheckpointError."""


def sizes(values: Any) -> tuple[int, ...] | None:
    """A tuple or list of at most 16 whole numbers of at least 0, or None for anything else."""
    if not isinstance(values, tuple | list) or len(values) > _MAX_DIMENSIONS:
        return None
    return tuple(values) if all(type(n) is int and 0 <= n < 1 << 62 for n in values) else None
