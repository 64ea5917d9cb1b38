"""Processes side by side that end with the one that started them, and jobs whose results are kept as they come."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection, get_context, parent_process
from threading import Thread
from typing import Any, Protocol, Self

from rlmerge.errors import RunError
from rlmerge.progress import Progress

from .store import Records

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables that linear algebra takes its number of threads from when a process starts."""

_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**33)}
"""Makes the C library keep memory that was freed: training frees and takes the same buffers at every step, and to have
them cleared by the system each time costs as much as computing in them."""

_QUIET = {"TRANSFORMERS_VERBOSITY": "error"}
"""A process of many would repeat every reminder."""


@contextmanager
def processes(workers: int, environment: Mapping[str, str]) -> Generator[ProcessPoolExecutor]:
    """``workers`` processes that see ``environment``, started when there is work; what waits is dropped at the end."""
    environment = {**_KEEP_MEMORY, **_QUIET, **environment}
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
        Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


def _end_after(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


class Job(Protocol):
    """One piece of a study: it can be pickled, and its result follows from its identity."""

    @property
    def label(self) -> str:
        """What its file is called, without the digest."""
        ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """Everything that decides the result, JSON-able."""
        ...

    @property
    def cost(self) -> int:
        """Answers it scores, the unit in which progress is told."""
        ...

    def run(self) -> Any:
        """Do the work; the result is JSON-able."""
        ...


class Pool:
    """``workers`` processes, started when there is work, whose linear algebra has one thread.

    Matrices this small gain nothing from more, and with one thread results do not depend on the number of workers. What
    is done is kept at once, so a killed study loses a job at most.
    """

    def __init__(self, records: Records, progress: Progress, workers: int) -> None:
        self.records, self.progress = records, progress
        self._context = processes(workers, dict.fromkeys(THREADS, "1"))

    def __enter__(self) -> Self:
        self._processes = self._context.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._context.__exit__(*error)

    def do(self, phase: str, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        """The records of all ``jobs``, in their order; those on disk are not run again.

        The first error ends the phase; what was finished remains on disk. RunError when a process dies.
        """
        found = [self.records.find(job.label, job.identity) for job in jobs]
        open_ = [index for index, record in enumerate(found) if record is None]
        if open_:
            self.progress.start(phase, sum(jobs[index].cost for index in open_), "answers")
            futures = {self._processes.submit(_work, jobs[index], self.records): index for index in open_}
            for future in as_completed(futures):
                index = futures[future]
                found[index] = _result(future, jobs[index])
                self.progress.advance(jobs[index].cost)
            self.progress.done()
        return [record for record in found if record is not None]


def _work(job: Job, records: Records) -> dict[str, Any]:
    started = time.process_time()
    result = job.run()
    return records.keep(job.label, job.identity, result, time.process_time() - started)


def _result(future: Future[dict[str, Any]], job: Job) -> dict[str, Any]:
    try:
        return future.result()
    except BrokenProcessPool as error:
        hint = "Perhaps memory ran out: try fewer workers. The same command continues with what is missing."
        raise RunError("a process of the study died", where=job.label, hint=hint) from error
