"""Candidates: the merges of a round, made in one read of the models, in memory or as directories."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rlmerge.checkpoint import PartialDirectory, open_checkpoint
from rlmerge.errors import RequestError, RunError
from rlmerge.kernels.dtypes import DType, decode
from rlmerge.merging.account import Account, ExpertSurvival
from rlmerge.merging.job import Job
from rlmerge.merging.make import Opened
from rlmerge.merging.place import free_space
from rlmerge.merging.plan import Plan
from rlmerge.merging.run import check_unchanged
from rlmerge.merging.seal import write_side_files
from rlmerge.merging.sinks import ShardSink, StateSink, StatsSink
from rlmerge.merging.together import merge_together
from rlmerge.options import Options
from rlmerge.progress import Progress
from rlmerge.recipe import Recipe

State = Mapping[str, tuple[np.ndarray, DType, tuple[int, ...]]]
"""Merged tensors by name: flat storage values, their type and their shape."""


@dataclass(eq=False)
class Candidate:
    """One merge to be scored: a ``state`` in memory, or a sealed model ``directory``.

    ``proxies`` are what the merge itself measured, and ``proxy:kl`` where it is asked for. ``scored`` holds the scores
    of items seen so far, by task.
    """

    name: str
    recipe: Recipe
    proxies: Mapping[str, float]
    state: State | None = None
    directory: Path | None = None
    scored: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    def weights(self) -> dict[str, np.ndarray]:
        """The float tensors of a candidate in memory, float32, in their shapes."""
        assert self.state is not None, "a directory is read by its evaluator"
        return {
            name: decode(flat, dtype).astype(np.float32, copy=False).reshape(shape)
            for name, (flat, dtype, shape) in self.state.items()
            if dtype.is_float
        }

    def tensors(self) -> Iterator[tuple[str, np.ndarray]]:
        """Names and values of the float tensors, in memory or on disk, one at a time; values are flat for the latter.

        CheckpointError when a directory cannot be read.
        """
        if self.directory is None:
            yield from self.weights().items()
            return
        for name, source in open_checkpoint(self.directory).tensors.items():
            if source.dtype.is_float:
                yield name, np.array(decode(source.read(), source.dtype), np.float32)

    def discard(self) -> None:
        """Give back memory and disk."""
        self.state = None
        if self.directory is not None:
            shutil.rmtree(self.directory, ignore_errors=True)


class _RecordingSink(StateSink):
    """Keeps tensors in memory, and what their merges accounted for.

    All tensors share one allocation. With ``sampled`` the account is that of a part of large tensors.
    """

    def __init__(self, memory: np.ndarray, sampled: bool) -> None:
        super().__init__(self._allocate)
        self.sampled = sampled
        self.stats: dict[str, Mapping[str, Any]] = {}
        self._memory = memory
        self._taken = 0

    def _allocate(self, job: Job) -> np.ndarray:
        first, self._taken = self._taken, self._taken + _padded(job)
        return self._memory[first : first + job.output.nbytes].view(job.output.dtype.storage)

    def finish(self, job: Job, stats: Mapping[str, Any]) -> None:
        super().finish(job, stats)
        self.stats[job.name] = stats

    def hand_over(self) -> dict[str, np.ndarray]:
        """The tensors, of which the sink keeps none: the memory is theirs alone."""
        found, self.state, self._memory = self.state, {}, np.empty(0, np.uint8)
        return found


class _Memory:
    """Allocations for merges in memory. What no candidate uses any more serves the next ones: memory that was never
    touched costs the system more time than a merge into it does."""

    def __init__(self) -> None:
        # Each with the array that was made of it last. Views of that keep it alive, as they would not keep an array
        # alive that owns its memory: NumPy lets them refer to the owner alone.
        self._held: list[tuple[memoryview, Callable[[], np.ndarray | None]]] = []

    def take(self, nbytes: int) -> np.ndarray:
        """At least ``nbytes`` that nobody looks at. One that large is backed by huge pages."""
        unused = [place for place, (_, user) in enumerate(self._held) if user() is None]
        for place in unused:
            if len(self._held[place][0]) >= nbytes:
                return self._lend(place)
        for place in reversed(unused):
            del self._held[place]
        self._held.append((np.empty(nbytes, np.uint8).data, lambda: None))
        return self._lend(-1)

    def _lend(self, place: int) -> np.ndarray:
        memory = self._held[place][0]
        array = np.frombuffer(memory, np.uint8)
        self._held[place] = memory, weakref.ref(array)
        return array


def _padded(job: Job) -> int:
    """Bytes of a merged tensor, up to a whole number of cache lines."""
    return -(-job.output.nbytes // 64) * 64


class Maker:
    """Merges recipes of models that are open: into memory up to ``memory`` bytes, or into directories of ``folder``."""

    def __init__(
        self,
        opened: Opened,
        options: Options,
        memory: int,
        folder: Path,
        in_memory: bool,
        progress: Progress,
        *,
        sampled: bool = False,
    ) -> None:
        """With ``sampled`` the proxies of merges in memory are estimated on a part of large tensors."""
        self.opened = opened
        self.options = options
        self.memory = memory
        self.folder = folder
        self.in_memory = in_memory
        self.progress = progress
        self.sampled = sampled
        self._memory = _Memory()
        self.passes = 0
        """How often the models were read."""

    def batch(self, recipe: Recipe) -> int:
        """How many candidates like this recipe's can be held at a time, at least one."""
        size = max(1, self.opened.plan(recipe, None, self.options).bytes_written)
        room = self.memory if self.in_memory else int(free_space(self.folder) * 0.9)
        return max(1, room // size)

    def make(self, recipes: Mapping[str, Recipe]) -> dict[str, Candidate | RequestError]:
        """The merges of ``recipes`` by name, or why one of them cannot be made.

        RunError when the disk does not take them or a model changes meanwhile.
        """
        made: dict[str, Candidate | RequestError] = {}
        plans: dict[str, Plan] = {}
        for name, recipe in recipes.items():
            try:
                plans[name] = self.opened.plan(recipe, None, self.options)
            except RequestError as error:
                made[name] = error
        try:
            made.update(self._merge(plans))
        except RequestError as error:
            # One candidate overflows or meets what its method refuses; the others need not suffer for it.
            for name, plan in plans.items() if len(plans) > 1 else ():
                try:
                    made.update(self._merge({name: plan}))
                except RequestError as own:
                    made[name] = own
            if len(plans) == 1:
                made[next(iter(plans))] = error
        return {name: made[name] for name in recipes}

    def projections(self, recipes: Mapping[str, Recipe]) -> dict[str, float]:
        """The mean coefficient of the task vectors in the merged change, by name; estimated, and no merge is kept.

        Recipes that cannot be merged are left out, or all of them where only the merge shows it. RunError as for
        ``make``.
        """
        plans: dict[str, Plan] = {}
        for name, recipe in recipes.items():
            with suppress(RequestError):
                plans[name] = self.opened.plan(recipe, None, self.options)
        stats: dict[str, dict[str, Mapping[str, Any]]] = {name: {} for name in plans}

        def sink(name: str) -> StatsSink:
            return StatsSink(lambda job, found: stats[name].update({job.name: found}), sampled=True)

        try:
            with _said_of_searches():
                self.passes += merge_together(list(plans.values()), [sink(name) for name in plans], self.progress)
        except RequestError:
            return {}
        found = {name: _projection(_account(plan, stats[name])) for name, plan in plans.items()}
        return {name: value for name, value in found.items() if value is not None}

    def _merge(self, plans: Mapping[str, Plan]) -> dict[str, Candidate]:
        if not plans:
            return {}
        with _said_of_searches():
            found = self._into_memory(plans) if self.in_memory else self._onto_disk(plans)
            check_unchanged(job for plan in plans.values() for job in plan.jobs.values())
        return found

    def _into_memory(self, plans: Mapping[str, Plan]) -> dict[str, Candidate]:
        sizes = [sum(_padded(job) for job in plan.jobs.values()) for plan in plans.values()]
        sinks = [_RecordingSink(self._memory.take(size), self.sampled) for size in sizes]
        self.passes += merge_together(list(plans.values()), sinks, self.progress)
        found: dict[str, Candidate] = {}
        for (name, plan), sink in zip(plans.items(), sinks, strict=True):
            tensors = sink.hand_over()
            state = {n: (tensors[n], job.output.dtype, job.output.shape) for n, job in plan.jobs.items()}
            found[name] = Candidate(name, plan.recipe, _proxies(_account(plan, sink.stats)), state)
        return found

    def _onto_disk(self, plans: Mapping[str, Plan]) -> dict[str, Candidate]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            partials = [
                stack.enter_context(PartialDirectory(self.folder / name, plan.digest, force=True))
                for name, plan in plans.items()
            ]
            sinks = [ShardSink(p, plan.shards, plan.options) for p, plan in zip(partials, plans.values(), strict=True)]
            try:
                self.passes += merge_together(list(plans.values()), sinks, self.progress)
            except RequestError:
                for partial in partials:
                    partial.abandon()
                raise
            accounts = {
                name: _account(plan, sink.stats) for (name, plan), sink in zip(plans.items(), sinks, strict=True)
            }
            for partial, (name, plan) in zip(partials, plans.items(), strict=True):
                write_side_files(plan, partial, {}, accounts[name].contents_digests())
                partial.seal(plan.shards)
        return {
            name: Candidate(name, plan.recipe, _proxies(accounts[name]), directory=self.folder / name)
            for name, plan in plans.items()
        }


@contextmanager
def _said_of_searches() -> Generator[None, None, None]:
    """A failed merge says how a merge goes on; a search goes on another way."""
    try:
        yield
    except RunError as error:
        hint = "See to that, then run the same command again: finished trials are kept."
        raise RunError(error.what, where=error.where, hint=hint) from error


def _account(plan: Plan, stats: Mapping[str, Mapping[str, Any]]) -> Account:
    account = Account([expert.reference for expert in plan.experts])
    for name, found in stats.items():
        account.add(plan.jobs[name], found)
    return account


def _proxies(account: Account) -> dict[str, float]:
    """What a merge says of itself by names of ``objectives.PROXIES``; nothing where there is no base."""
    experts = account.survival()
    if not experts:
        return {}
    return {
        "proxy:survival": _mean([expert.survival or 0.0 for expert in experts]),
        "proxy:retention": _mean([_retained(expert) for expert in experts]),
    }


def _projection(account: Account) -> float | None:
    """The mean coefficient of the task vectors in the merged change; None where there is none."""
    found = [expert.projection for expert in account.survival() if expert.projection is not None]
    return _mean(found) if found else None


def _retained(expert: ExpertSurvival) -> float:
    """The coefficient of an expert's own changes, or of all where it has none of its own, in [0, 1]."""
    found = expert.realised if expert.realised is not None else expert.projection
    return 0.0 if found is None else min(1.0, max(0.0, found))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
