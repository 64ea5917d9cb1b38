"""The process's peak of anonymous memory: what a machine really has to have, file pages aside."""

from __future__ import annotations

import gc
import mmap
import os
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import TracebackType

_EVERY = 0.02
_PAGE = mmap.PAGESIZE


def anonymous_now() -> int | None:
    """Anonymous resident bytes at this moment; None where the system does not tell."""
    try:
        descriptor = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        _, resident, shared, *_ = os.read(descriptor, 256).split()
    finally:
        os.close(descriptor)
    # What is shared are pages of files and of shared memory.
    return (int(resident) - int(shared)) * _PAGE


@contextmanager
def uncollected() -> Generator[None, None, None]:
    """No search for cyclic garbage inside: a plan makes hundreds of thousands of objects, and all of them stay."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if not gc.get_freeze_count():
                # All objects become old ones, so that enabling does not walk over every new one at once.
                gc.freeze()
                gc.unfreeze()
            gc.enable()


class PeakMemory:
    """Samples anonymous memory on a thread of its own while the ``with`` block runs."""

    def __init__(self) -> None:
        self.peak = anonymous_now()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="rlmerge-memory", daemon=True)

    def __enter__(self) -> PeakMemory:
        if self.peak is not None:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._sample()

    def _watch(self) -> None:
        while not self._stop.wait(_EVERY):
            self._sample()

    def _sample(self) -> None:
        now = anonymous_now()
        if now is not None and self.peak is not None:
            self.peak = max(self.peak, now)
