"""Runs a plan: scan, merge tile by tile, write in order, seal."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from rlmerge.checkpoint import PartialDirectory, ShardWriter
from rlmerge.errors import CheckpointError, RequestError
from rlmerge.methods.method import Share
from rlmerge.planning import Plan, TensorPlan
from rlmerge.planning.sizing import sizing
from rlmerge.progress import Progress, Quiet

from . import cache
from .memory import PeakMemory
from .mergers import make_merger
from .nonfinite import refuse_nonfinite, refuse_overflow
from .pieces import Numbers
from .result import Account, MergeResult
from .scan import Scan
from .seal import write_side_files
from .strangers import strangers
from .stream import Workers
from .tiles import Tile, cut


@dataclass
class _Piece:
    """A tile on its way to the writer: the future of its accounting and the buffer it fills.

    ``notes`` and ``report`` are what the method says of the tile's tensor.
    """

    tile: Tile
    future: Future[Any]
    buffer: np.ndarray | None
    last: bool
    notes: Sequence[str] = ()
    report: Mapping[str, Share] = field(default_factory=dict[str, Share])


class _Stopped(Exception):
    """The writer has failed; its error is raised instead."""


class _Merge:
    """One run: the main thread plans tiles, worker threads compute them, a writer thread writes them in order."""

    def __init__(self, plan: Plan, partial: PartialDirectory, workers: Workers, progress: Progress) -> None:
        self.plan = plan
        self.partial = partial
        self.workers = workers
        self.progress = progress
        self.size = sizing(plan)
        self.account = Account([expert.reference for expert in plan.experts])
        self.scan = Scan(plan, workers, self.size.tile, progress, cache.load(plan))
        self.buffers: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()
        self.pieces: queue.Queue[_Piece | None] = queue.Queue()
        self.failure: BaseException | None = None
        self.stop = threading.Event()

    def run(self) -> None:
        """Merge everything that is not completed yet. Raises what any thread raised first."""
        self.scan.scan_model()
        completed = self.partial.completed()
        for name, entry in completed.items():
            self.account.add(name, entry.stats)
        left = [t for name, t in self.plan.tensors.items() if name not in completed]
        self.progress.start("merge", sum(info.nbytes for tensor in left for info in tensor.inputs))
        for _ in range(self.size.buffers):
            self._add_buffer()
        writer = threading.Thread(target=self._write_all, name="rlmerge-writer")
        writer.start()
        try:
            with suppress(_Stopped):
                for tensor, following in zip(left, [*left[1:], None], strict=False):
                    if following is not None:
                        self.workers.prefetch(following)
                    self._submit(tensor)
        except BaseException as error:
            self.failure = self.failure or error
            self.stop.set()
        finally:
            self.pieces.put(None)
            writer.join()
        if self.failure is not None:
            raise self.failure
        self.progress.done()
        if not completed:
            cache.save(self.plan, self.scan.known)

    def _add_buffer(self) -> None:
        largest = max(t.output.dtype.itemsize for t in self.plan.tensors.values())
        self.buffers.put(np.empty(self.size.tile * largest, np.uint8))

    def _submit(self, tensor: TensorPlan) -> None:
        """Hand a tensor's tiles to the workers and, in order, to the writer."""
        if not tensor.output.numel:
            self._enqueue(
                _Piece(Tile(tensor, 0, 0), _done(Numbers(np.zeros((0, 0)), np.zeros(0, np.int64))), None, True)
            )
            return
        work, notes, report = (self._copier(), (), {}) if tensor.action == "copy" else self._merger(tensor)
        by_rows = tensor.action == "merge" and self.plan.method.rows_field is not None
        size = tensor.output.numel if tensor.action == "merge" and self.plan.method.whole else self.size.tile
        for tile in self.workers.prefetched(cut(tensor, size, by_rows=by_rows)):
            buffer = None
            if tensor.action == "merge":
                buffer = self._take(tile.count * tensor.output.dtype.itemsize).view(tensor.output.dtype.storage)
            future = self.workers.submit(tile, lambda tile, inputs, buffer=buffer: work(tile, inputs, buffer))
            self._enqueue(_Piece(tile, future, buffer, tile.stop == tensor.output.numel, notes, report))

    def _take(self, nbytes: int) -> np.ndarray:
        """A free buffer of ``nbytes``; waits for the writer, which may have failed."""
        while True:
            try:
                whole = self.buffers.get(timeout=0.2)
            except queue.Empty:
                if self.stop.is_set():
                    raise _Stopped from None
                continue
            if self.stop.is_set():
                raise _Stopped
            return whole[:nbytes] if nbytes <= len(whole) else np.empty(nbytes, np.uint8)

    def _enqueue(self, piece: _Piece) -> None:
        if self.stop.is_set():
            raise _Stopped
        self.pieces.put(piece)

    def _merger(self, tensor: TensorPlan) -> tuple[Any, Sequence[str], Mapping[str, Share]]:
        self.scan.scan_tensor(tensor)
        values = self.scan.values(tensor)
        method = self.plan.method
        return make_merger(self.plan, tensor, values), method.warn(values), method.report(values)

    def _copier(self) -> Any:
        def copy(tile: Tile, inputs: Sequence[np.ndarray], buffer: None) -> np.ndarray:
            for info, other in zip(tile.inputs[1:], inputs[1:], strict=True):
                if not np.array_equal(inputs[0].view(np.uint8), other.view(np.uint8)):
                    raise CheckpointError(
                        f"differs from {tile.inputs[0].where}; {info.dtype.name} tensors are copied, not merged",
                        where=info.where,
                        hint="Merge models whose integer tensors are identical.",
                    )
            return inputs[0]

        return copy

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
        writers: dict[str, ShardWriter] = {}
        shard_of = {output.name: shard for shard in self.plan.shards for output in shard.tensors}
        parts: list[Numbers] = []
        while (piece := self.pieces.get()) is not None:
            name = piece.tile.tensor.output.name
            shard = shard_of[name]
            if shard.name not in writers:
                writers[shard.name] = self.partial.shard_writer(shard)
            found = piece.future.result()
            if piece.buffer is None:
                if piece.tile.count:
                    writers[shard.name].write(name, found)
            else:
                self._check(piece.tile, found)
                writers[shard.name].write(name, piece.buffer)
                parts.append(found)
                self._give_back(piece.buffer)
            self.progress.advance(piece.tile.nbytes)
            if piece.last:
                stats = _stats(parts, piece.notes, piece.report)
                writers[shard.name].finish_tensor(name, stats)
                self.account.add(name, stats)
                parts = []

    def _check(self, tile: Tile, found: Numbers) -> None:
        if self.plan.options.on_nonfinite == "keep":
            return
        if found.nonfinite_in and self.plan.options.on_nonfinite == "error":
            refuse_nonfinite(tile)
        if found.nonfinite_out:
            refuse_overflow(tile.tensor)

    def _give_back(self, buffer: np.ndarray) -> None:
        whole = buffer
        while isinstance(whole.base, np.ndarray):
            whole = whole.base
        if len(whole) > self.size.tile * 8:
            self._add_buffer()  # a whole tensor's own buffer goes; the pool keeps its size
        else:
            self.buffers.put(whole)


def _done(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future


def _stats(parts: Sequence[Numbers], notes: Sequence[str], report: Mapping[str, Share]) -> dict[str, Any]:
    if not parts:
        return {}
    sums, counts = np.concatenate([p.sums for p in parts]), np.sum([p.counts for p in parts], axis=0)
    return Account.stats(sums, counts, notes, report)


Documents = Callable[[Plan, MergeResult], Mapping[str, bytes]]


def run(
    plan: Plan, out: str | Path, progress: Progress | None = None, documents: Documents = lambda plan, result: {}
) -> MergeResult:
    """Carry out ``plan`` into the directory ``out``, which appears when it is complete.

    ``documents`` gives further files, such as the model card, from what happened; their bytes must not depend on time.

    RequestError (nothing written) if an input turns out to be wrong or ``out`` exists without ``force``; RunError (the
    partial directory is kept for ``resume``) if writing fails.
    """
    began = time.perf_counter()
    progress = progress or Quiet()
    options = plan.options
    if options.resume:
        progress.start("check finished tensors", 0)
    with PartialDirectory(
        Path(out), plan.digest, resume=options.resume, force=options.force, advance=progress.advance
    ) as partial:
        with PeakMemory() as memory, Workers(options.threads) as workers:
            try:
                found = [*plan.warnings, *strangers(plan)]
                for warning in found:
                    progress.message(f"warning: {warning}")
                merge = _Merge(plan, partial, workers, progress)
                merge.run()
            except RequestError:
                partial.abandon()
                raise
        dtypes = ", ".join(sorted({t.output.dtype.name for t in plan.tensors.values() if t.action == "merge"}))
        warnings = [*found, *merge.account.warnings(options.rounding, dtypes)]
        survival = merge.account.survival()
        counts = merge.account.counts
        result = MergeResult(
            out=Path(out),
            method=plan.method.name,
            status=plan.method.status,
            seconds=0.0,
            bytes_read=plan.bytes_read,
            bytes_written=plan.bytes_written,
            peak_memory=memory.peak,
            tensors=len(plan.tensors),
            resumed=len(partial.completed()),
            parameters=sum(t.output.numel for t in plan.tensors.values()),
            changed=int(counts[0]),
            survived=int(counts[1]),
            experts=survival,
            warnings=tuple(warnings),
            details=merge.account.details(),
        )
        progress.start("seal", 0)
        write_side_files(plan, partial, documents(plan, result))
        partial.seal(plan.shards)
        progress.done()
    return replace(result, seconds=time.perf_counter() - began)
