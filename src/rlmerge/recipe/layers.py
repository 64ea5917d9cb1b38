"""Which transformer layer a tensor belongs to, read off its name."""

from __future__ import annotations

import re
from collections.abc import Iterable

_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?)\.([0-9]{1,6})(?:\.|$)")
"""A number of more digits is no layer's: it would cost more than any model to count that far."""


def layer_index(tensor: str) -> int | None:
    """The layer number in a tensor's name; None for embeddings, final norm and head."""
    found = _LAYER.search(tensor)
    return int(found[1]) if found else None


def layer_count(tensors: Iterable[str]) -> int:
    """How many layers the named tensors span: one more than the largest layer number, 0 where none has one."""
    return 1 + max((index for name in tensors if (index := layer_index(name)) is not None), default=-1)
