"""A merge by several processes over a shared file system: each its share of the shards, and one that seals them."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlmerge.checkpoint import PartialDirectory, ShardPlan
from rlmerge.checkpoint.shares import Share, gather
from rlmerge.errors import RequestError
from rlmerge.frozen import frozen
from rlmerge.progress import Progress, Quiet

from . import cache
from .account import MergeResult
from .claims import is_claim
from .execute import check_unchanged
from .memory import PeakMemory
from .plan import Plan
from .run import Documents, for_now, merge_shards, run
from .statistics import SCOPE, Statistics
from .stream import Workers
from .wrong_base import check_base


@frozen
class ShareResult:
    """A finished share: its shards, tensors (``resumed`` of them from before), bytes and seconds.

    ``peak_memory`` is the process's anonymous peak in bytes, None where the system does not tell.
    """

    out: Path
    share: str
    shards: tuple[str, ...]
    of_shards: int
    tensors: int
    resumed: int
    bytes_written: int
    seconds: float
    peak_memory: int | None
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-able data."""
        return {**asdict(self), "out": str(self.out)}


def shards_of(plan: Plan, share: Share) -> tuple[ShardPlan, ...]:
    """The shards of one share: about equal bytes to read and write for each, the same in every process."""
    return share.of([(shard, shard.size + _input_bytes(plan, shard)) for shard in plan.shards])


def run_share(
    plan: Plan, out: Path, share: Share, progress: Progress | None = None, known: cache.Known | None = None
) -> ShareResult:
    """Merge one share of ``plan`` into the partial directory of ``out``; ``seal_shares`` completes the output.

    ``known`` takes up statistics over the whole model, for further shares of the same plan. Errors as for ``run``;
    RequestError also if another process has this share, or others merge something else there.
    """
    began = time.perf_counter()
    progress = progress or Quiet()
    options, shards = plan.options, shards_of(plan, share)
    if options.resume:
        progress.start("check finished tensors", 0)
    with PartialDirectory(
        out,
        plan.digest,
        resume=options.resume,
        force=options.force,
        advance=progress.advance,
        shards=shards,
        accepts=lambda entry: is_claim(plan.job_of.get(entry.tensor), entry),
        share=share,
    ) as partial:
        jobs = [job for shard in shards for job in plan.jobs_of(shard)]
        with PeakMemory() as memory, Workers(plan.sizing.threads, ahead=plan.sizing.ahead) as workers:
            try:
                warnings = [*plan.warnings, *check_base(plan)] if jobs else []
                for warning in warnings:
                    progress.message(f"warning: {warning}")
                found = cache.load(plan) or dict(known or {})
                fresh = not found
                statistics = Statistics(list(plan.jobs.values()), workers, options, plan.sizing, progress, found)
                merge_shards(plan, shards, partial, statistics, workers, progress)
            except RequestError as error:
                if isinstance(error.__cause__, OSError):
                    raise for_now(error) from error
                partial.abandon()
                raise
        wide = {name: values for name, values in statistics.known.items() if name.startswith(SCOPE) and values}
        if known is not None:
            known.update(wide)
        if fresh and wide:
            # What took the whole model to find is found once, where the processes share a cache.
            cache.save(plan, wide)
        check_unchanged(jobs)
        partial.finish(shards)
        resumed = sum(job.last in partial.completed() for job in jobs)
    return ShareResult(
        out=out,
        share=str(share),
        shards=tuple(shard.name for shard in shards),
        of_shards=len(plan.shards),
        tensors=len(jobs),
        resumed=resumed,
        bytes_written=sum(shard.size for shard in shards),
        seconds=time.perf_counter() - began,
        peak_memory=memory.peak,
        warnings=tuple(warnings),
    )


def seal_shares(
    plan: Plan, out: Path, progress: Progress | None = None, documents: Documents = lambda plan, result: {}
) -> MergeResult:
    """Complete the output whose shares are merged: every tensor is read again and compared with its digest.

    ``plan`` must resume. RequestError, with nothing changed, if a share is missing, unfinished, or of another merge;
    other errors as for ``run``.
    """

    def adopt(home: Path) -> None:
        gather(home, plan.digest, plan.shards, lambda share: [shard.name for shard in shards_of(plan, share)])

    return run(plan, out, progress, documents, adopt)


def _input_bytes(plan: Plan, shard: ShardPlan) -> int:
    return sum(source.nbytes for job in plan.jobs_of(shard) for source in job.inputs)
