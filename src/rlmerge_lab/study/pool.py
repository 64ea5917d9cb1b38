"""Jobs through processes of one thread each; what is done is kept at once, so a killed study loses a job at most."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol, Self

from rlmerge.errors import RunError
from rlmerge.progress import Progress
from rlmerge_lab.study.records import Records
from rlmerge_lab.training.processes import THREADS, processes


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

    Matrices this small gain nothing from more, and with one thread results do not depend on the number of workers.
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
