"""Streams jobs: one thread cuts and submits tiles, workers merge them, one thread hands them to sinks in order."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from itertools import chain, islice
from typing import Any

import numpy as np
import xxhash

from rlmerge.checkpoint.output_file import PAGE, page_aligned
from rlmerge.frozen import frozen
from rlmerge.kernels.dtypes import decode
from rlmerge.options import Options
from rlmerge.progress import Progress

from .account import Account
from .backend import Numbers
from .job import Job
from .nonfinite import refuse_nonfinite, refuse_overflow
from .sinks import Sink
from .sizing import Sizing
from .statistics import Statistics
from .stream import PREFETCH_BYTES, Workers
from .tile_work import SAMPLE, Done, TileMerge, TileWork
from .tiles import Tile, cut


@frozen
class Lane:
    """One recipe of a run: its statistics, and where its tensors go."""

    statistics: Statistics
    sink: Sink


@frozen
class Task:
    """Jobs over the same inputs, which are read once: one for each lane.

    ``tiles`` limits the merge to some ranges, as forecasts do; None is the whole tensor.
    """

    jobs: tuple[Job, ...]
    tiles: tuple[tuple[int, int], ...] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes that the task reads."""
        if self.tiles is None:
            return sum(source.nbytes for source in self.jobs[0].inputs)
        return sum(Tile(self.jobs[0], start, stop).nbytes for start, stop in self.tiles)


@frozen
class _Buffer:
    """Where a tile is merged into; ``whole`` is the memory to give back, None where it is the sink's."""

    array: Any
    whole: np.ndarray | None


@frozen
class _Piece:
    """A tile on its way to the sinks: the future of its accounting, and the buffers it fills, lane by lane."""

    tile: Tile
    merges: Sequence[TileMerge]
    future: Future[Any]
    buffers: Sequence[_Buffer | None]
    last: bool


class _Stopped(Exception):
    """The writer has failed; its error is raised instead."""


class Executor:
    """Runs tasks in order. Everything is bounded: tiles in flight, buffers, and what waits for the sinks."""

    def __init__(
        self,
        lanes: Sequence[Lane],
        workers: Workers,
        sizing: Sizing,
        options: Options,
        progress: Progress,
        *,
        checked: bool = True,
        digested: bool = False,
    ) -> None:
        """``checked`` merges stop where a number is not finite, as ``options`` say; others count whatever comes.

        With ``digested`` the account of each tensor holds an xxh3 of everything that was read for it.
        """
        self.checked = checked
        self.digested = digested
        self.lanes = lanes
        self.workers = workers
        self.sizing = sizing
        self.options = options
        self.progress = progress
        self.buffers: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()
        self.pieces: queue.Queue[_Piece | None] = queue.Queue()
        self.giving = threading.Lock()
        self.failure: BaseException | None = None
        self.stop = threading.Event()

    def run(self, tasks: Iterable[Task], following: Iterable[Task] = ()) -> None:
        """Merge every task, and ask for what those ``following`` read first. Raises what any thread raised first."""
        for _ in range(self.sizing.buffers * len(self.lanes)):
            self.buffers.put(page_aligned(self.sizing.buffer + PAGE))
        writer = threading.Thread(target=self._write_all, name="rlmerge-writer")
        writer.start()
        try:
            with suppress(_Stopped):
                for task, asked in self._asked_ahead(tasks, following):
                    self._submit(task, asked)
        except BaseException as error:
            self.failure = self.failure or error
            self.stop.set()
        finally:
            self.pieces.put(None)
            writer.join()
        if self.failure is not None:
            raise self.failure

    def _asked_ahead(self, tasks: Iterable[Task], following: Iterable[Task]) -> Iterator[tuple[Task, int]]:
        """``tasks``, each handed out once the next ``PREFETCH_BYTES`` of those behind it were asked for.

        With each, how many of its elements were.
        """
        waiting: deque[tuple[Task, int, int]] = deque()
        behind = 0
        tasks = list(tasks)
        left = len(tasks)
        for task in chain(tasks, following):
            if not left:
                return
            size = task.nbytes
            asked = 0
            if waiting:
                behind += size
                if task.tiles is None:
                    asked = self.workers.prefetch(task.jobs[0])
            waiting.append((task, size, asked))
            while left and len(waiting) > 1 and behind >= PREFETCH_BYTES:
                ready, _, asked = waiting.popleft()
                yield ready, asked
                left -= 1
                behind -= waiting[0][1]
        for task, _, asked in islice(waiting, left):
            yield task, asked

    def _submit(self, task: Task, asked: int) -> None:
        """Hand a task's tiles to the workers and, in order, to the writer; ``asked`` elements were asked for."""
        tiles = list(self._tiles(task))
        if not tiles:
            merges = [TileMerge(job, None) for job in task.jobs]
            nothing = [None] * len(merges)
            self._enqueue(_Piece(Tile(task.jobs[0], 0, 0), merges, _done(([None] * len(merges), ())), nothing, True))
            return
        first = task.jobs[0]
        # What a scan has read is at hand; what was asked for of other machines may have made room since.
        asked_for = asked >= first.output.numel and not any(x.is_remote for x in first.inputs)
        merging = [self._merge(lane, job, asked_for) for lane, job in zip(self.lanes, task.jobs, strict=True)]
        merges = [merge for merge, _ in merging]
        at_hand = asked_for or any(scanned for _, scanned in merging)
        work = TileWork(merges, self.digested)
        for tile in tiles if at_hand else self.workers.prefetched(tiles):
            buffers = [self._buffer(lane, merge, tile) for lane, merge in zip(self.lanes, merges, strict=True)]
            future = self.workers.submit(tile, partial(_run, work, buffers), reads=work.reads)
            self._enqueue(_Piece(tile, merges, future, buffers, tile is tiles[-1]))
        for lane, job in zip(self.lanes, task.jobs, strict=True):
            lane.statistics.forget(job)

    def _tiles(self, task: Task) -> Iterator[Tile]:
        first = task.jobs[0]
        if task.tiles is not None:
            return (Tile(first, start, stop) for start, stop in task.tiles)
        size = first.output.numel if any(job.whole for job in task.jobs) else self.sizing.tile
        return cut(first, size, by_rows=any(job.by_rows for job in task.jobs))

    def _merge(self, lane: Lane, job: Job, asked: bool) -> tuple[TileMerge, bool]:
        """How a lane merges a job, and whether all of the tensor was read to know that; ``asked`` as for a scan."""
        if job.method is None or (self.checked and self.options.on_nonfinite == "keep" and _is_shared_mask(job)):
            # Masks of -inf, which every model shares, are no numbers to compute with.
            return TileMerge(job, None), False
        scanned = lane.statistics.scan(job, asked=asked)
        values = lane.statistics.values(job)
        sampled = lane.sink.sampled and job.output.numel > SAMPLE and not (job.whole or job.by_rows or job.extras)
        merger, *quiet = lane.statistics.mergers(job, values, True, *([False] if sampled else []))
        return TileMerge(job, merger, *lane.statistics.report(job, values), *quiet), scanned

    def _buffer(self, lane: Lane, merge: TileMerge, tile: Tile) -> _Buffer | None:
        """Where a lane's tile is merged into: memory of its sink, or of the pool."""
        if merge.merger is None:
            return None
        array = lane.sink.buffer(merge.job, tile)
        if array is not None:
            return _Buffer(array, None)
        dtype = merge.job.output.dtype
        nbytes = tile.count * dtype.itemsize
        shift = lane.sink.shift(merge.job, tile)
        whole = self._take(shift + nbytes)
        return _Buffer(whole[shift : shift + nbytes].view(dtype.storage), whole)

    def _take(self, nbytes: int) -> np.ndarray:
        """A free buffer of at least ``nbytes``; waits for the writer, which may have failed."""
        while True:
            try:
                whole = self.buffers.get(timeout=0.2)
            except queue.Empty:
                if self.stop.is_set():
                    raise _Stopped from None
                continue
            if self.stop.is_set():
                raise _Stopped
            return whole if nbytes <= len(whole) else page_aligned(nbytes)

    def _enqueue(self, piece: _Piece) -> None:
        if self.stop.is_set():
            raise _Stopped
        self.pieces.put(piece)

    def _write_all(self) -> None:
        """The writer thread: takes pieces in order until None."""
        try:
            self._write_in_order()
        except BaseException as error:
            self.failure = error
            self.stop.set()
            while self.pieces.get() is not None:
                continue

    def _write_in_order(self) -> None:
        parts: list[list[Numbers]] = [[] for _ in self.lanes]
        counted = [0 for _ in self.lanes]
        digests: list[Sequence[bytes]] = []
        while (piece := self.pieces.get()) is not None:
            found, read = piece.future.result()
            digests.append(read)
            lanes = zip(self.lanes, piece.merges, piece.buffers, found, strict=True)
            for number, (lane, merge, buffer, numbers) in enumerate(lanes):
                tile = piece.tile.of(merge.job)
                if buffer is not None:
                    self._check(tile, numbers)
                    if told := merge.accounted(tile):
                        parts[number].append(numbers)
                        counted[number] += told
                    self._give_back(buffer, lane.sink.write(merge.job, tile, buffer.array))
                elif tile.count:
                    lane.sink.write(merge.job, tile, numbers)
            self.progress.advance(piece.tile.nbytes)
            if piece.last:
                check_unchanged([piece.tile.job])
                inputs = {"inputs": [xxhash.xxh3_128_hexdigest(b"".join(each)) for each in zip(*digests, strict=True)]}
                for lane, merge, part, seen in zip(self.lanes, piece.merges, parts, counted, strict=True):
                    stats = _stats(part, merge, merge.job.output.numel / seen if merge.quiet else 1.0)
                    lane.sink.finish(merge.job, {**stats, **(inputs if self.digested else {})})
                parts, counted, digests = [[] for _ in self.lanes], [0 for _ in self.lanes], []

    def _check(self, tile: Tile, found: Numbers) -> None:
        if not self.checked or self.options.on_nonfinite == "keep":
            return
        if found.nonfinite_in and self.options.on_nonfinite == "error":
            refuse_nonfinite(tile)
        if found.nonfinite_out:
            refuse_overflow(tile.job)

    def _give_back(self, buffer: _Buffer, busy: Sequence[Future[Any]]) -> None:
        """Let others use a buffer, as soon as nobody reads it any more."""
        whole = buffer.whole
        if whole is None:
            return
        # A whole tensor's own buffer goes; the pool keeps its size.
        usual = len(whole) <= self.sizing.buffer + PAGE
        left = len(busy)

        def done(_: object) -> None:
            nonlocal left
            with self.giving:
                left -= 1
                last = left <= 0
            if last:
                self.buffers.put(whole if usual else page_aligned(self.sizing.buffer + PAGE))

        for each in busy:
            each.add_done_callback(done)
        if not busy:
            done(None)


def check_unchanged(jobs: Iterable[Job]) -> None:
    """RunError if a file that a job reads is no longer what it was when it was opened."""
    for file in {file for job in jobs for source in job.inputs for file in source.files}:
        file.check()


def _is_shared_mask(job: Job) -> bool:
    """Whether all models hold the same bits, some of them not finite; reads them up to the first difference."""
    first, *others = job.sources
    if first.dtype is not job.output.dtype or any(other.dtype is not first.dtype for other in others):
        return False
    step, finite = 1 << 16, True
    for start in range(0, first.numel, step):
        stop = min(first.numel, start + step)
        words = first.read(start, stop)
        if not all(np.array_equal(words.view(np.uint8), x.read(start, stop).view(np.uint8)) for x in others):
            return False
        finite = finite and bool(np.isfinite(decode(words, first.dtype)).all())
    return not finite


def _stats(parts: Sequence[Numbers], merge: TileMerge, scale: float) -> dict[str, Any]:
    """The account of a tensor, of which ``parts`` tell one in ``scale`` elements."""
    if not parts:
        return {}
    sums, counts = np.concatenate([p.sums for p in parts]), np.sum([p.counts for p in parts], axis=0)
    if scale != 1.0:
        sums, counts = sums * scale, np.rint(counts * scale).astype(np.int64)
    measured = {label: share for part in parts for label, share in part.report.items()}
    return Account.stats(sums, counts, merge.notes, {**merge.report, **measured})


def _run(work: TileWork, buffers: Sequence[_Buffer | None], tile: Tile, inputs: Sequence[Any]) -> Done:
    return work(tile, inputs, [buffer and buffer.array for buffer in buffers])


def _done(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future
