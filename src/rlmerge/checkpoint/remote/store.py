"""What every kind of remote store does for us: list a model's files, and give ranges of one edition of each."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable, Mapping
from typing import NoReturn, Protocol, TypeVar

import numpy as np

from rlmerge.checkpoint.remote.refusals import CREDENTIALS, Refusal, brief, network_hint
from rlmerge.errors import CheckpointError
from rlmerge.frozen import frozen

Value = TypeVar("Value")

ATTEMPTS = 8
"""Tries of a request before the run gives up: about a minute of an unreachable store."""

FIRST_DELAY = 0.25
LONGEST_DELAY = 15.0
"""Seconds between tries: doubled each time, up to the longest, and drawn from the upper half of that."""


@frozen(slots=True)
class ObjectStamp:
    """What changes when an object does: its size in bytes, and its tag (an etag, a content digest, or its time)."""

    size: int
    tag: str


class Transient(Exception):
    """A request failed in a way that the next try may not: a connection, a server's error, a body cut short."""


class Changed(Exception):
    """The object is no longer the one that was listed."""


class Store(Protocol):
    """A model directory on another machine. Every method may be called from any thread.

    ``address`` names it in messages. Transient if another try may succeed; CheckpointError if none will.
    """

    address: str

    def list(self) -> Mapping[str, ObjectStamp]:
        """The files by their names below the address, folders separated by ``/``."""
        ...

    def stat(self, name: str) -> ObjectStamp | None:
        """The stamp of a file now; None if there is none."""
        ...

    def get(self, name: str, stamp: ObjectStamp, first: int, last: int) -> np.ndarray:
        """The bytes [first, last) of that edition, uint8; Changed if there is another."""
        ...


def retried(action: Callable[[], Value], where: str) -> Value:
    """The value of ``action``, tried again after each Transient; CheckpointError when it fails too often."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return action()
        except Transient as error:
            if attempt == ATTEMPTS:
                raise unreachable(where, str(error)) from OSError(errno.EIO, str(error))
            delay = min(LONGEST_DELAY, FIRST_DELAY * 2 ** (attempt - 1))
            time.sleep(delay * (0.5 + 0.5 * random.random()))
    raise AssertionError("the last attempt returns or raises")


def unreachable(where: str, reason: str) -> CheckpointError:
    """The error for a store that keeps failing; its cause must be an OSError, so that a run's work is kept."""
    what = f"cannot be read: {ATTEMPTS} requests failed, the last with: {brief(reason)}"
    return CheckpointError(what, where=where, hint=network_hint(where))


def refused(where: str, found: Refusal | None) -> NoReturn:
    """Raise the error for a store that does not let us in; its cause is an OSError, as it may do so later."""
    found = found or Refusal("the store denies access", CREDENTIALS)
    error = CheckpointError(f"may not be read: {found.what}", where=where, hint=found.hint)
    raise error from OSError(errno.EACCES, found.what)
