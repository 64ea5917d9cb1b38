"""Runs a plan: statistics, shards, seal."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from rlmerge.checkpoint import PartialDirectory, ShardPlan
from rlmerge.errors import RequestError, RunError
from rlmerge.frozen import frozen
from rlmerge.progress import Progress, Quiet

from . import cache
from .account import Account, MergeResult
from .claims import is_claim
from .execute import Executor, Lane, Task, check_unchanged
from .locked import check_contents
from .memory import PeakMemory
from .plan import Plan
from .routers import MIXED_ROUTERS, measure_routers
from .seal import write_side_files
from .sinks import ShardSink
from .statistics import Statistics
from .stream import Workers, ask_for_first
from .wrong_base import ask_for_samples, check_base

Documents = Callable[[Plan, MergeResult], Mapping[str, bytes]]


@frozen
class ShardRecord:
    """What the merge of one shard leaves behind beside the file: the account of each tensor by name. Mergeable."""

    shard: str
    stats: Mapping[str, Mapping[str, Any]]


def merge_shard(
    plan: Plan,
    shard: ShardPlan,
    partial: PartialDirectory,
    statistics: Statistics,
    workers: Workers,
    progress: Progress,
    following: ShardPlan | None = None,
) -> ShardRecord:
    """Merge the tensors of one shard that the journal of ``partial`` does not hold yet.

    The unit of work: shards depend on each other only through statistics over the whole model, which must have been
    scanned. What the ``following`` shard reads first is asked for towards the end.
    """
    completed = partial.completed()
    jobs = plan.jobs_of(shard)
    left = [job for job in jobs if job.last not in completed]
    then = [job for job in plan.jobs_of(following) if job.last not in completed] if following and left else []
    sink = ShardSink(partial, [shard], plan.options)
    lane = Lane(statistics, sink)
    executor = Executor([lane], workers, plan.sizing, plan.options, progress, digested=True)
    executor.run((Task((job,)) for job in left), (Task((job,)) for job in then))
    kept = {job.name: completed[job.last].stats for job in jobs if job.last in completed}
    return ShardRecord(shard.name, {**kept, **sink.stats})


def run(
    plan: Plan,
    out: str | Path,
    progress: Progress | None = None,
    documents: Documents = lambda plan, result: {},
    adopt: Callable[[Path], None] | None = None,
) -> MergeResult:
    """Carry out ``plan`` into the directory ``out``, which appears when it is complete.

    ``documents`` gives further files, such as the model card, from what happened; their bytes must not depend on time.
    ``adopt`` takes up what other processes left in the partial directory, which it is given locked.

    RequestError (nothing written) if an input turns out to be wrong or ``out`` exists without ``force``; RunError (the
    partial directory is kept for ``resume``) if writing fails or an input changes meanwhile.
    """
    began = time.perf_counter()
    progress = progress or Quiet()
    options = plan.options
    if options.resume:
        progress.start("check finished tensors", 0)
    if plan.sizing.ahead and not options.resume:
        # The plan's digest takes many small requests: the link has room for large ones beside them.
        ask_for_samples(plan)
        ask_for_first((job for shard in plan.shards[:1] for job in plan.jobs_of(shard)), plan.sizing.ahead)
    with PartialDirectory(
        Path(out),
        plan.digest,
        resume=options.resume,
        force=options.force,
        advance=progress.advance,
        shards=plan.shards,
        accepts=lambda entry: is_claim(plan.job_of.get(entry.tensor), entry),
        adopt=adopt,
    ) as partial:
        with PeakMemory() as memory, Workers(plan.sizing.threads, ahead=plan.sizing.ahead) as workers:
            try:
                found = [*plan.warnings, *check_base(plan)]
                for warning in found:
                    progress.message(f"warning: {warning}")
                account = _merge(plan, partial, workers, progress)
            except RequestError as error:
                if isinstance(error.__cause__, OSError):
                    raise for_now(error) from error
                partial.abandon()
                raise
        routers = measure_routers(plan, partial.path, account.routers)
        if routers is not None and routers.is_mixed:
            found.append(MIXED_ROUTERS.format(tensors=routers.tensors))
        result = replace(
            _result(plan, Path(out), account, found),
            routers=routers,
            peak_memory=memory.peak,
            resumed=sum(job.last in partial.completed() for job in plan.jobs.values()),
        )
        progress.start("seal", 0)
        check_unchanged(plan.jobs.values())
        for model in plan.models:
            for file in model.watched:
                file.check()
        contents = account.contents_digests()
        try:
            check_contents(plan, contents)
        except RequestError:
            partial.abandon()
            raise
        try:
            write_side_files(plan, partial, documents(plan, result), contents)
        except RequestError as error:
            raise for_now(error) from error
        partial.seal(plan.shards)
        progress.done()
    return replace(result, seconds=time.perf_counter() - began)


def for_now(error: RequestError) -> RunError:
    """The failure of a run whose request is right: what the system refuses today it may give tomorrow."""
    hint = "See that it can be read, then run again with --resume to continue."
    return RunError(error.what, where=error.where, hint=hint)


def _merge(plan: Plan, partial: PartialDirectory, workers: Workers, progress: Progress) -> Account:
    """Scan and merge everything that is not completed yet."""
    statistics = Statistics(list(plan.jobs.values()), workers, plan.options, plan.sizing, progress, cache.load(plan))
    account = Account([expert.reference for expert in plan.experts])
    for record in merge_shards(plan, plan.shards, partial, statistics, workers, progress):
        for name, stats in record.stats.items():
            account.add(plan.jobs[name], stats)
    if not partial.completed():
        cache.save(plan, statistics.known)
    return account


def merge_shards(
    plan: Plan,
    shards: Sequence[ShardPlan],
    partial: PartialDirectory,
    statistics: Statistics,
    workers: Workers,
    progress: Progress,
) -> list[ShardRecord]:
    """Merge what the journal of ``partial`` does not hold of ``shards``, after a scan where statistics need one."""
    completed = partial.completed()
    left = [job for shard in shards for job in plan.jobs_of(shard) if job.last not in completed]
    if left:
        statistics.scan_model()
    progress.start("merge", sum(source.nbytes for job in left for source in job.inputs))
    records = [
        merge_shard(plan, shard, partial, statistics, workers, progress, following)
        for shard, following in zip_longest(shards, shards[1:])
    ]
    progress.done()
    return records


def _result(plan: Plan, out: Path, account: Account, warnings: list[str]) -> MergeResult:
    dtypes, rounding = ", ".join(sorted({job.output.dtype.name for job in plan.merged})), plan.options.rounding
    if any(job.encoder for job in plan.merged):
        dtypes, rounding = "the base's own format", None
    return MergeResult(
        out=out,
        method=plan.method_name,
        status=plan.status,
        seconds=0.0,
        bytes_read=plan.bytes_read,
        bytes_written=plan.bytes_written,
        peak_memory=None,
        tensors=len(plan.jobs),
        resumed=0,
        parameters=sum(job.output.numel for job in plan.jobs.values()),
        changed=account.changed,
        survived=account.survived,
        experts=account.survival(),
        warnings=(*warnings, *account.warnings(rounding, dtypes)),
        details=account.details(),
    )
