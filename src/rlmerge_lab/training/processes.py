"""Processes side by side that end when the one that started them does."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import connection, get_context, parent_process
from threading import Thread

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables that linear algebra takes its number of threads from when a process starts."""


@contextmanager
def processes(workers: int, environment: Mapping[str, str]) -> Generator[ProcessPoolExecutor]:
    """``workers`` processes that see ``environment``, started when there is work; what waits is dropped at the end."""
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _die_with_parent)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _die_with_parent() -> None:
    """End this process when the one that started it is gone, even if that was killed without a word."""
    parent = parent_process()
    if parent is not None:
        Thread(target=_watch, args=(parent.sentinel,), daemon=True).start()


def _watch(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
