"""The one driver of the protocol: stages of statistics → values → formula.

Stages up to the last one with a statistic over the whole model are scanned model-wide, one pass after the other. The
stages behind it need only their own tensor; they are scanned tensor by tensor, right before the tensor is merged, so
that its weights are read from disk once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from rlmerge.kernels.jit import BLOCK
from rlmerge.methods import Method, Share, Statistic
from rlmerge.methods.method import Stages
from rlmerge.options import Options
from rlmerge.progress import Progress

from .accumulators import Accumulator, accumulator
from .backend import Binding, Merger, Reducer, Storing, bind
from .job import Job
from .nonfinite import refuse_nonfinite
from .pool import Pool
from .reading import job_is_even
from .sizing import Sizing
from .stream import Workers
from .tiles import MATRIX_TILE, Tile, cut

T = TypeVar("T")
Found = dict[str, np.ndarray]
_Open = dict[str, tuple[Statistic, Accumulator]]
_Twins = dict[str, list[tuple[Statistic, Accumulator]]]

LEAST_SHARE = 4
"""Blocks of a tensor that are worth a thread of their own."""

ALIKE = 256
"""Bindings that are kept for tensors with the same values."""

SCOPE = "\x1e"
"""What the names of statistics over a scope begin with: no tensor's name holds control characters."""


class Statistics:
    """Gathers what the jobs of one recipe need; ``known`` holds what is known by tensor name, or by scope.

    Recipes that read the same sources side by side may share a ``pool``.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        workers: Workers,
        options: Options,
        sizing: Sizing,
        progress: Progress,
        known: dict[str, Found] | None = None,
        pool: Pool | None = None,
    ) -> None:
        self.workers = workers
        self.options = options
        self.sizing = sizing
        self.progress = progress
        self.known: dict[str, Found] = {} if known is None else known
        self.pool = pool
        self.alike: dict[Hashable, tuple[Job, Any]] = {}
        """By what they are made of, which the job keeps alive."""
        self.scopes: dict[str, list[Job]] = {}
        for job in jobs:
            if job.method is not None and job.output.numel:
                self.scopes.setdefault(job.scope, []).append(job)

    def scan_model(self) -> None:
        """Gather the stages that need the whole of a scope, if any."""
        for scope, jobs in self.scopes.items():
            stages = jobs[0].stages[: wide_stages(jobs[0].stages)]
            store = self.known.setdefault(f"{SCOPE}{scope}", {})
            for number, stage in enumerate(stages, 1):
                for statistic in stage:
                    if statistic.over == "tensor":
                        for job in jobs:
                            self._scan([job], (statistic,), self._store(job))
                wide = [s for s in stage if s.over == "model" and s.name not in store]
                if wide and not self._skipped(jobs, wide, store):
                    self.progress.start(f"scan {number}/{len(stages)}", sum(s.nbytes for j in jobs for s in j.inputs))
                    self._scan(jobs, wide, store)
                    self.progress.done()

    def _skipped(self, jobs: Sequence[Job], stage: Sequence[Statistic], store: Found) -> bool:
        """Whether every statistic over the model is known without reading; their values are stored."""
        for statistic in stage:
            found = [self._unread(statistic, job) for job in jobs]
            if any(value is None for value in found):
                return False
            store[statistic.name] = np.asarray(found[0])
        return True

    def scan(self, job: Job, *, asked: bool = False) -> bool:
        """Gather the remaining stages for one job; whether all of its inputs were read for that.

        ``asked`` says that the kernel has been asked to read them.
        """
        reads = False
        for stage in job.stages[wide_stages(job.stages) :]:
            reads |= self._scan([job], stage, self._store(job), asked)
        return reads

    def forget(self, job: Job) -> None:
        """Drop what only the merge of this job needed: matrices, and as many row-wise values as the tensor has rows."""
        rows = {s.name for stage in job.stages for s in stage if s.reduce in ("rows", "matrix")}
        for name in rows.intersection(self.known.get(job.name, {})):
            del self.known[job.name][name]
        if self.pool is not None:
            self.pool.forget(job)

    def values(self, job: Job) -> dict[str, Any]:
        """All values of a job's formula; its stages must have been gathered."""
        values = self._so_far(job)
        derive = _method(job).derive
        return {**values, **(derive(dict(values)) if derive else {})}

    def mergers(self, job: Job, values: Mapping[str, Any], *accounts: bool) -> list[Merger]:
        """What merges the tiles of a job whose ``values`` are complete: for each of ``accounts``, with or without."""
        method, options = _method(job), self.options

        def made() -> tuple[Binding, list[Merger]]:
            keeps_base = job.base is not None and method.keeps_base(values)
            binding = bind(method, method.formula, job, values, options)
            storing = [Storing(job.output.dtype, options.rounding, keeps_base, told) for told in accounts]
            return binding, [self.workers.backend.merger(binding, each) for each in storing]

        # What needs no reading follows from the values.
        unread = all(self._unread(each, job) is not None for stage in job.stages for each in stage)
        alike = unread and options.rounding != "stochastic"
        return self._for_all_alike(job, (accounts, job.output.dtype), made) if alike else made()[1]

    def _for_all_alike(self, job: Job, what: Hashable, make: Callable[[], tuple[Binding, T]]) -> T:
        """What ``make`` makes of a job's values, once for all with the same values and nothing of their own."""
        key = (what, id(job.method), id(job.values), job.output.shape, job.operands)
        own = bool(job.extras) or job.whole
        if not own and (found := self.alike.get(key)) is not None:
            return found[1]
        binding, made = make()
        if not own and not binding.streams:
            if len(self.alike) >= ALIKE:
                self.alike.clear()
            self.alike[key] = job, made
        return made

    def report(self, job: Job, values: Mapping[str, Any]) -> tuple[Sequence[str], Mapping[str, Share]]:
        """What the method warns of and measures for one job."""
        return _method(job).warn(values), _method(job).report(values)

    def _unread(self, statistic: Statistic, job: Job) -> Any | None:
        """The value of a statistic of a job that is known without reading; None where there is none."""
        return statistic.skip(self._so_far(job)) if statistic.skip else None

    def _store(self, job: Job) -> Found:
        return self.known.setdefault(job.name, {})

    def _so_far(self, job: Job) -> dict[str, Any]:
        found = {**self.known.get(f"{SCOPE}{job.scope}", {}), **self.known.get(job.name, {})}
        markers = {name: job.extras.get(name) for name in _method(job).inputs}
        return {**job.values, **markers, **found}

    def _scan(self, jobs: Sequence[Job], stage: Sequence[Statistic], store: Found, asked: bool = False) -> bool:
        """Gather ``stage`` over all tiles of ``jobs``, in as many passes as it takes; whether it took any."""
        first = self._so_far(jobs[0])
        numel = sum(job.output.numel for job in jobs)
        open_: _Open = {}
        for statistic in stage:
            if statistic.name in store:
                continue
            skipped = [self._unread(statistic, job) for job in jobs]
            if all(value is not None for value in skipped):
                store[statistic.name] = np.asarray(skipped[0])
            elif self.pool is not None and (shared := self.pool.value(jobs, statistic)) is not None:
                store[statistic.name] = shared
            else:
                open_[statistic.name] = (statistic, accumulator(statistic))
        twins = _twins(open_, self._resume(jobs, open_, numel, first, store))
        reads = bool(open_)
        while open_:
            self._pass(jobs, open_, first, twins, asked)
            passed = list(open_.values())
            for statistic, gathered in passed:
                tally = gathered.first_tally
                if tally is None:
                    continue
                if self.pool is not None:
                    self.pool.keep_tally(jobs, statistic, tally)
                for twin, other in twins.pop(statistic.name, ()):
                    other.resume(jobs[0].operands.real, tally)
                    open_[twin.name] = (twin, other)
            self._advance(jobs, list(open_.values()), open_, numel, first, store)
        return reads

    def _resume(
        self, jobs: Sequence[Job], open_: _Open, numel: int, first: Mapping[str, Any], store: Found
    ) -> set[str]:
        """Take up selections whose first pass another recipe made; their names."""
        resumed: set[str] = set()
        for statistic, gathered in list(open_.values()):
            tally = None if self.pool is None else self.pool.tally(jobs, statistic)
            if tally is not None and gathered.resume(jobs[0].operands.real, tally):
                resumed.add(statistic.name)
                self._advance(jobs, [(statistic, gathered)], open_, numel, first, store)
        return resumed

    def _advance(
        self,
        jobs: Sequence[Job],
        passed: Sequence[tuple[Statistic, Accumulator]],
        open_: _Open,
        numel: int,
        first: Mapping[str, Any],
        store: Found,
    ) -> None:
        """Close what its last pass made exact."""
        for statistic, gathered in passed:
            value = gathered.advance(numel, first)
            if value is not None:
                store[statistic.name] = value
                del open_[statistic.name]
                if self.pool is not None:
                    self.pool.keep(jobs, statistic, value)

    def _pass(self, jobs: Sequence[Job], open_: _Open, values: Mapping[str, Any], twins: _Twins, asked: bool) -> None:
        rows = any(statistic.reduce == "rows" for statistic, _ in open_.values())
        reducers = {
            job.name: {name: self._reducer(statistic, job, gathered) for name, (statistic, gathered) in open_.items()}
            for job in jobs
        }

        def work(tile: Tile, inputs: Sequence[Any]) -> dict[str, tuple[Any, bool]]:
            mine = reducers[tile.job.name]
            return {name: open_[name][1].partial(mine[name], tile, inputs) for name in open_}

        if any(statistic.reduce == "matrix" for statistic, _ in open_.values()):
            tiles = (tile for job in jobs for tile in cut(job, MATRIX_TILE, by_rows=True))
        else:
            tiles = (tile for job in jobs for tile in self._cut(job, rows or job.by_rows))
        # Blocks are read once for each statistic, so that for several a tile that is mapped once costs less.
        reads = len(open_) == 1 and all(each.reads for found in reducers.values() for each in found.values())
        reads = reads and not rows and all(job_is_even(job) and not job.by_rows for job in jobs)
        if reads and len(jobs) == 1 and self.pool is None:
            whole = Tile(jobs[0], 0, jobs[0].output.numel)
            for name, (_, gathered) in open_.items():
                others = [twin for _, twin in twins.get(name, ())]
                gathered.expect(reducers[jobs[0].name][name], whole, values, others)
        for tile, partials in self.workers.map(tiles, work, reads=reads, asked=asked):
            if self.options.on_nonfinite == "error" and any(bad for _, bad in partials.values()):
                refuse_nonfinite(tile)
            for name, (partial, _) in partials.items():
                open_[name][1].add(tile, partial)
            if len(jobs) > 1:
                self.progress.advance(tile.nbytes)

    def _cut(self, job: Job, by_rows: bool) -> Iterator[Tile]:
        if by_rows:
            return cut(job, self.sizing.tile, by_rows=True)
        # The merge waits for the scan of its tensor, so all threads take a part even of one that fits a tile.
        share = max(-(-job.output.numel // (self.sizing.threads * BLOCK)), LEAST_SHARE) * BLOCK
        return cut(job, min(self.sizing.scan_tile, share))

    def _reducer(self, statistic: Statistic, job: Job, gathered: Accumulator) -> Reducer:
        def made() -> tuple[Binding, tuple[Binding, Reducer]]:
            binding = bind(_method(job), statistic.formula, job, self._so_far(job), self.options)
            return binding, (binding, self.workers.backend.reducer(binding, statistic.reduce))

        # Those of later stages may look at what earlier ones found.
        first = any(each is statistic for each in job.stages[0])
        binding, reducer = self._for_all_alike(job, id(statistic), made) if first else made()[1]
        gathered.prepare(binding, reducer)
        return reducer


def wide_stages(stages: Stages) -> int:
    """How many of the first stages must be complete over the whole model before any tensor is merged."""
    return max((i + 1 for i, stage in enumerate(stages) if any(s.over == "model" for s in stage)), default=0)


def _twins(open_: _Open, resumed: Collection[str]) -> _Twins:
    """Take selections out of ``open_`` that are made from the values of an earlier one, by that one's name."""
    first: dict[Any, str] = {}
    twins: _Twins = {}
    for name, (statistic, gathered) in list(open_.items()):
        if statistic.reduce == "kth" and name not in resumed:
            leader = first.setdefault((statistic.formula, statistic.over), name)
            if leader != name:
                twins.setdefault(leader, []).append((statistic, gathered))
                del open_[name]
    return twins


def _method(job: Job) -> Method:
    assert job.method is not None, "a copied tensor has no statistics"
    return job.method
