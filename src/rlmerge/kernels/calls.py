"""What a kernel is called with: the order of its arguments, which the loop over the blocks of a tile knows too."""

from __future__ import annotations

import ctypes
from typing import Protocol

import numpy as np

CALL = (
    ("function", "ptr", False),
    ("block", "i64", False),
    ("columns", "i64", False),
    ("out", "ptr", True),
    ("params", "ptr", False),
    ("rows", "ptr", False),
    ("row_stride", "i64", False),
    ("keys", "ptr", False),
    ("sums", "ptr", True),
    ("counts", "ptr", True),
    ("largest", "ptr", True),
    ("histograms", "ptr", False),
    ("side", "ptr", False),
    ("side_counts", "ptr", False),
    ("side_capacity", "i64", False),
    ("selection", "ptr", False),
    ("masks", "ptr", False),
    ("mask_stride", "i64", False),
    ("held", "ptr", False),
)
"""What a kernel is given beside its range and inputs, in its order: name, type, and whether each step of a tile has a
place of its own. The strides of those, in bytes, follow."""


def call_words(**given: int) -> list[int]:
    """The arguments that ``CALL`` names, 0 where none is given, with one place for all steps."""
    found = [given.pop(name, 0) for name, _, _ in CALL]
    if given:
        raise TypeError(f"a kernel has no argument {sorted(given)[0]!r}")
    return [*found, *(0 for _, _, stepped in CALL if stepped)]


def address(array: np.ndarray | None) -> int:
    """Where the memory of a contiguous array begins; 0 without one."""
    if array is None:
        return 0
    try:
        # Four times as fast as what every array can say of itself.
        return ctypes.addressof(ctypes.c_char.from_buffer(array))  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        # Read-only, or empty.
        return array.ctypes.data


class Step(Protocol):
    """A kernel on one tile, as the loop over its blocks runs it."""

    @property
    def words(self) -> list[int]:
        """Its arguments, as ``CALL`` names them."""
        ...

    def restart(self) -> None:
        """Forget what a run that did not end has counted."""
        ...


_TYPES = {"ptr": ctypes.c_void_p, "i64": ctypes.c_int64}
FUNCTION = ctypes.CFUNCTYPE(None, *([ctypes.c_int64] * 4), ctypes.c_void_p, *(_TYPES[kind] for _, kind, _ in CALL[3:]))
