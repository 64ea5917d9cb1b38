"""Models trained from one base have the same index and headers: what these say is worked out once for all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Hashable
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

_found: ContextVar[dict[Hashable, Any] | None] = ContextVar("found", default=None)


@contextmanager
def opened_together() -> Generator[None, None, None]:
    """Models that are opened inside share what is the same in them; nothing is kept afterwards."""
    token = _found.set({})
    try:
        yield
    finally:
        _found.reset(token)


def once(kind: str, data: bytes, find: Callable[[], T]) -> T:
    """What ``find`` makes of ``data`` alone, made once where models are opened together; nobody changes it."""
    known = _found.get()
    if known is None:
        return find()
    key = kind, hashlib.blake2b(data, digest_size=32).digest()
    if key not in known:
        known[key] = find()
    return known[key]


def known_of(kind: str, key: Hashable) -> Any:
    """What was kept of a ``key`` by ``keep`` for models opened together with this one; None where nothing was."""
    known = _found.get()
    return None if known is None else known.get((kind, key))


def keep(kind: str, key: Hashable, value: Any) -> None:
    """Keep a ``value`` for further models that are opened together with this one."""
    known = _found.get()
    if known is not None:
        known[kind, key] = value
