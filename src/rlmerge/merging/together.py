"""Several recipes of the same models merged side by side: every tensor is read once, whatever their number."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

from rlmerge.checkpoint.source import Extent, Source
from rlmerge.errors import RequestError
from rlmerge.progress import Progress

from .execute import Executor, Lane, Task
from .plan import Plan
from .pool import Pool
from .sinks import Sink
from .sizing import Lanes, Sizing, size_of
from .statistics import Statistics
from .stream import Workers


def merge_together(plans: Sequence[Plan], sinks: Sequence[Sink], progress: Progress) -> int:
    """Merge each plan into its sink; how many times the models were read for it.

    Plans whose tensors come from the same sources in the same order are merged in one pass and share statistics and
    tallies, as many at a time as the memory budget of their options allows; others need a pass of their own. Errors as
    for ``run``; what the sinks hold then is incomplete.
    """
    groups: dict[Hashable, list[int]] = {}
    for number, plan in enumerate(plans):
        groups.setdefault(_reading(plan), []).append(number)
    passes = 0
    for numbers in groups.values():
        in_place = all(sinks[number].in_place for number in numbers)
        for part, sizing in _fitting([plans[number] for number in numbers], in_place):
            chosen = [numbers[place] for place in part]
            _merge([plans[n] for n in chosen], [sinks[n] for n in chosen], sizing, progress)
            passes += 1
    return passes


def _merge(plans: Sequence[Plan], sinks: Sequence[Sink], sizing: Sizing, progress: Progress) -> None:
    first, pool = plans[0], Pool()
    with Workers(sizing.threads, ahead=sizing.ahead) as workers:
        lanes: list[Lane] = []
        for plan, sink in zip(plans, sinks, strict=True):
            statistics = Statistics(list(plan.jobs.values()), workers, plan.options, sizing, progress, pool=pool)
            statistics.scan_model()
            lanes.append(Lane(statistics, sink))
        what = "a candidate" if len(plans) == 1 else f"{len(plans)} candidates"
        progress.start(f"merge {what}", first.bytes_read)
        tasks = (Task(tuple(plan.jobs[name] for plan in plans)) for name in first.jobs)
        Executor(lanes, workers, sizing, first.options, progress).run(tasks)
        progress.done()


def _reading(plan: Plan) -> Hashable:
    """Equal for plans whose jobs read the same sources, tensor by tensor."""
    return tuple(
        (name, job.method is None, tuple(_identity(source) for source in job.inputs), tuple(job.extras))
        for name, job in plan.jobs.items()
    )


def _identity(source: Source) -> Hashable:
    """A stretch of a file is itself; what is computed goes by where it comes from and what it holds."""
    if isinstance(source, Extent):
        return source
    return type(source).__name__, source.where, source.name, source.dtype.name, source.shape, source.fingerprint(False)


def _fitting(plans: Sequence[Plan], in_place: bool) -> Iterator[tuple[Sequence[int], Sizing]]:
    """Parts of the plans, as large as the memory budget allows, and how each is run."""
    distinct = {(plan.method_name, str(plan.recipe.static())): plan for plan in plans}
    size = len(plans)
    while True:
        try:
            lanes = Lanes(size, len(distinct), in_place)
            found = [size_of(list(plan.jobs.values()), plan.options, lanes) for plan in distinct.values()]
            break
        except RequestError:
            if size == 1:
                raise
            size = -(-size // 2)
    sizing = min(found, key=lambda each: (each.threads, each.tile, each.scan_tile))
    for start in range(0, len(plans), size):
        yield range(start, min(start + size, len(plans))), sizing
