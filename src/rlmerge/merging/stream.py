"""Tiles through worker threads: read ahead, bounded in flight, results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from .backend import Backend
from .job import Job
from .measured import check_input
from .on_llvm import LlvmBackend
from .tiles import Tile, cut

PREFETCH_BYTES = 64 * 2**20
"""Input bytes the kernel is asked to read ahead of the tile that is handed out."""

BEGINNING = 2**23
"""Elements that are asked for of the tensors behind the one that is read."""

Result = TypeVar("Result")


class Workers:
    """Threads that compute tiles with one backend; remote inputs may take ``ahead`` bytes before they are needed."""

    def __init__(self, threads: int, backend: Backend | None = None, *, ahead: int = 0) -> None:
        _limit(ahead)
        self.threads = threads
        self.backend: Backend = backend or LlvmBackend()
        self.pool = ThreadPoolExecutor(threads, "rlmerge-worker")

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def submit(
        self, tile: Tile, work: Callable[[Tile, Sequence[Any]], Result], *, reads: bool = False
    ) -> Future[Result]:
        """Read ``tile`` and give it to ``work`` on some thread; its pages are given back afterwards.

        Work that ``reads`` by itself is given the tile without inputs.
        CheckpointError when a further input holds what it cannot, such as a negative sensitivity.
        """
        return self.pool.submit(work, tile, ()) if reads else self.pool.submit(self._run, tile, work)

    def _run(self, tile: Tile, work: Callable[[Tile, Sequence[Any]], Result]) -> Result:
        arrays = [self.backend.load(source, *tile.span(source)) for source in tile.inputs]
        further = iter(arrays[len(tile.job.sources) :])
        for name, sources in tile.job.extras.items():
            for source in sources:
                check_input(name, np.asarray(next(further)), source, tile.span(source)[0])
        result = work(tile, arrays)
        for source in tile.inputs:
            source.release(*tile.span(source))
        return result

    def map(
        self,
        tiles: Iterable[Tile],
        work: Callable[[Tile, Sequence[Any]], Result],
        *,
        reads: bool = False,
        asked: bool = False,
    ) -> Iterator[tuple[Tile, Result]]:
        """(tile, result) in order, with at most two tiles a thread in flight; ``reads`` as for ``submit``.

        They are asked for ahead, unless somebody has ``asked`` for them.
        """
        flying: deque[tuple[Tile, Future[Result]]] = deque()
        ahead = iter(tiles) if asked else self.prefetched(tiles)
        for tile in islice(ahead, 2 * self.threads):
            flying.append((tile, self.submit(tile, work, reads=reads)))
        while flying:
            tile, future = flying.popleft()
            result = future.result()
            for following in islice(ahead, 1):
                flying.append((following, self.submit(following, work, reads=reads)))
            yield tile, result

    def prefetch(self, job: Job) -> int:
        """Ask for the beginning of a tensor that will be needed soon; how many elements that is."""
        return _ask_for_beginning(job).count

    def prefetched(self, tiles: Iterable[Tile]) -> Iterator[Tile]:
        """The same tiles, each handed out after those of the next ``PREFETCH_BYTES`` were asked for."""
        waiting: deque[Tile] = deque()
        held = 0
        for tile in tiles:
            for source in tile.inputs:
                source.prefetch(*tile.span(source))
            waiting.append(tile)
            held += tile.nbytes
            while held > PREFETCH_BYTES:
                first = waiting.popleft()
                held -= first.nbytes
                yield first
        yield from waiting


def ask_for_first(jobs: Iterable[Job], ahead: int) -> None:
    """Ask for what a merge of ``jobs`` reads first, of remote inputs that may take ``ahead`` bytes before its start."""
    _limit(ahead)
    asked = 0
    for job in jobs:
        asked += _ask_for_beginning(job).nbytes
        if asked >= ahead // 2:
            return


def _ask_for_beginning(job: Job) -> Tile:
    """Ask for the first ``BEGINNING`` elements of a tensor, which are a tile."""
    tile = next(cut(job, BEGINNING), Tile(job, 0, 0))
    if tile.count:
        for source in tile.inputs:
            source.prefetch(*tile.span(source))
    return tile


def _limit(ahead: int) -> None:
    """Let remote inputs take so many bytes; 0 changes nothing."""
    if ahead:
        from rlmerge.checkpoint.remote.link import LINK

        LINK.capacity = ahead
