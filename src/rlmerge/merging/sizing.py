"""How large tiles may be, and how many at a time, so that all that is in flight fits the memory budget."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import replace

from rlmerge.checkpoint.output_file import DIRECT_FROM, DIRECT_MEMORY, PAGE
from rlmerge.errors import RequestError
from rlmerge.frozen import frozen
from rlmerge.kernels.histogram import BINS
from rlmerge.kernels.jit import ACCOUNT_BLOCK, BLOCK
from rlmerge.kernels.select import KEPT, SAMPLED_FROM, SIDE_CAPACITY, SIDE_TOTAL
from rlmerge.methods import Statistic
from rlmerge.methods.method import Needs
from rlmerge.options import Options

from .job import Job
from .reading import reading_memory
from .tiles import MATRIX_TILE, row_block

LARGEST_TILE = 1 << 22
"""Elements of a tile that is merged: enough that handing it from thread to thread costs little beside it."""

SCAN_TILE = 1 << 22
"""Elements per tile of a scan: inputs are mapped, not copied, and every tile brings histograms to clear and add up."""

QUEUE = 2
"""Finished tiles that may wait for the writer."""

ROW_COPIES = 10
"""Float64 arrays as large as a group of rows, per model: decoded inputs and what a function of rows makes of them."""

ARRAYS = 6
"""Float64 arrays as large as a block, per model: what a formula that is not compiled makes on its way."""

COMPILED = 6 * 2**20
"""Bytes for the compiled kernels of a run, whatever its tiles."""

_HISTOGRAM = BINS * 8


@frozen
class Sizing:
    """What the executor may use: ``threads``, elements per ``tile`` and ``scan_tile`` (multiples of ``BLOCK``), output
    ``buffers`` in flight of ``buffer`` bytes each, and the ``peak`` in bytes that all of it comes to, with
    the ``ahead`` bytes in which remote inputs arrive before they are needed."""

    threads: int
    tile: int
    scan_tile: int
    buffers: int
    buffer: int
    peak: int
    ahead: int = 0


LARGEST_AHEAD = 128 * 2**20
"""Bytes under way that fill any link; of a smaller budget it is a quarter."""


@frozen
class Lanes:
    """Recipes of about the same cost that run side by side: how many, and of how many ``kinds``.

    Those of a kind count magnitudes together. ``in_place`` ones are merged right where their results are kept.
    """

    count: int = 1
    kinds: int = 1
    in_place: bool = False


ONE = Lanes()


def size_of(jobs: Sequence[Job], options: Options, lanes: Lanes = ONE, reserved: int = 0) -> Sizing:
    """The fastest setting whose peak stays in the budget: first smaller tiles, then fewer threads.

    ``jobs`` are those of one recipe of ``lanes``; ``reserved`` bytes of the budget are for something else. RequestError
    when not even one thread with the smallest tiles fits.
    """
    merged = [job for job in jobs if job.method is not None and job.output.numel]
    held = sum(_held(job) for job in merged)
    writing = DIRECT_MEMORY if sum(job.output.nbytes for job in jobs) >= DIRECT_FROM and not lanes.in_place else 0
    merged = _distinct(merged)
    beside = _encoding(merged) + writing + reserved
    ahead = ahead_of(jobs, options)
    found: Sizing | None = None
    for threads, tile in _settings(options.threads):
        found = _setting(merged, threads, tile, lanes, held, beside + ahead)
        if found.peak <= options.memory:
            return replace(found, ahead=ahead)
    assert found is not None
    needed = -(-found.peak // 2**20)
    raise RequestError(
        f"this merge needs about {needed} MiB, but the budget is {options.memory // 2**20} MiB",
        hint=f'Give --memory {needed}MiB (memory="{needed}MiB" in Python).',
    )


def ahead_of(jobs: Iterable[Job], options: Options) -> int:
    """Bytes in which remote inputs may arrive before they are needed; 0 where all are here.

    Statistics of single tensors read these twice, so that more room saves traffic.
    """
    jobs = list(jobs)
    if not any(source.is_remote for job in jobs for source in job.inputs):
        return 0
    share = options.memory // 4
    return share if any(job.stages for job in jobs) else min(LARGEST_AHEAD, share)


def bytes_remote(jobs: Iterable[Job]) -> int:
    """Bytes of inputs that come over a network, each read once."""
    return sum(source.nbytes for job in jobs for source in job.inputs if source.is_remote)


def _settings(threads: int) -> Iterator[tuple[int, int]]:
    """(threads, tile) from fast to frugal."""
    while True:
        tile = LARGEST_TILE
        while tile >= BLOCK:
            yield threads, tile
            tile //= 2
        if threads == 1:
            return
        threads = max(1, threads // 2)


def _distinct(jobs: Sequence[Job]) -> list[Job]:
    """One of those that cost the same: a model has thousands of tensors and a few shapes."""
    found: dict[Hashable, Job] = {}
    for job in jobs:
        output = job.output
        costs = tuple([source.scratch for source in job.sources])
        same = id(job.method), id(job.stages), id(job.values), job.encoder is None
        key: Hashable = *same, output.shape, output.dtype.code, costs
        if key in found:
            continue
        if job.whole or job.by_rows or job.extras or job.encoder:
            key = job.name
        found[key] = job
    return list(found.values())


def _setting(jobs: Sequence[Job], threads: int, tile: int, lanes: Lanes, held: int, beside: int) -> Sizing:
    buffers = 0 if lanes.in_place else threads + QUEUE
    piece = max((_piece(job, tile) for job in jobs), default=0)
    itemsize = max((job.output.dtype.itemsize for job in jobs), default=1)
    scan_tile = SCAN_TILE if not any(source.scratch.per_element for job in jobs for source in job.inputs) else tile
    merging = max((_merging(job, threads, tile) for job in jobs), default=0)
    # Whole tensors are computed side by side, one a thread.
    merging = max(merging, sum(sorted((_merging(j, threads, tile) for j in jobs if j.whole), reverse=True)[:threads]))
    scanning = max((_scanning(job, threads, tile, scan_tile) for job in jobs), default=0)
    merging += max((_histograms(job, threads) for job in jobs), default=0)
    working = max(merging, scanning)
    own = buffers * (piece * itemsize + 2 * PAGE) + held
    if lanes.count > 1:
        own += max((_account(job) for job in jobs), default=0)
        beside += max((_draws(job, threads) for job in jobs), default=0)
        # A tile is read once, and compiled recipes merge it one after the other without memory of their own.
        simple = all(job.method and job.method.is_compiled(job.values) for job in jobs)
        alone = not simple or any(job.whole or job.by_rows for job in jobs)
        working = lanes.count * working if alone else max(merging, lanes.kinds * scanning)
    peak = COMPILED + lanes.count * own + working + lanes.count * _wide(jobs) + beside
    return Sizing(threads, tile, scan_tile, buffers, min(piece, tile) * itemsize, peak)


def _piece(job: Job, tile: int) -> int:
    """Elements of the job's largest tile when it is merged."""
    numel = job.output.numel
    if job.whole:
        return numel
    return min(numel, max(tile, row_block(job.columns)) if job.by_rows else tile)


def _flying(job: Job, tile: int, threads: int) -> int:
    """Tiles of a job that are computed at a time."""
    return min(threads, -(-job.output.numel // max(1, tile)))


def _scratch(job: Job, elements: int, flying: int) -> int:
    """Memory that reading the inputs of that many tiles takes."""
    costs = [source.scratch for source in job.inputs]
    return int(sum(cost.fixed for cost in costs) + flying * elements * sum(cost.per_element for cost in costs))


def _merging(job: Job, threads: int, tile: int) -> int:
    """Bytes for the merge of one job beside its output buffers."""
    piece = _piece(job, tile)
    flying = 1 if job.whole else _flying(job, piece, threads)
    total = _scratch(job, piece, flying) + flying * (_arrays(job) + _blocks(job))
    if job.by_rows:
        total += flying * (_rows(job, piece) if job.method and job.method.row_wise else _rows(job)) + _matrices(job)
    if job.whole and job.method is not None:
        # Base, experts and task vectors as decoded, further inputs too, and what the formula makes of them.
        needs = _needs(job)
        total += needs.itemsize * (piece * (2 * needs.experts + 1) + sum(needs.further)) + job.method.workspace(needs)
    return total


def _scanning(job: Job, threads: int, tile: int, scan_tile: int) -> int:
    """Bytes for the largest stage of one job's statistics over its own tensor."""
    return max((_stage(job, stage, threads, tile, scan_tile) for stage in job.stages), default=0)


def _stage(job: Job, stage: Sequence[Statistic], threads: int, tile: int, scan_tile: int) -> int:
    if any(statistic.reduce == "matrix" for statistic in stage):
        return _adding(job, stage, threads)
    rows = any(statistic.reduce == "rows" for statistic in stage)
    size = min(job.output.numel, max(tile, row_block(job.columns)) if rows or job.by_rows else scan_tile)
    flying = _flying(job, size, threads)
    total = _scratch(job, size, flying) + flying * (_arrays(job) + _blocks(job))
    if rows or job.by_rows:
        total += flying * _rows(job)
    selections = _selections(job, stage)
    if selections:
        # Each tile has a histogram and, while it is computed, a side list; two tiles a thread are under way.
        tiles = min(2 * threads, -(-job.output.numel // max(1, size)))
        side = 4 * min(size, SIDE_CAPACITY)
        total += selections * (tiles * _HISTOGRAM + flying * side + _total(job.output.numel))
        total += _histograms(job, threads)
    return total


def _selections(job: Job, stage: Sequence[Statistic]) -> int:
    """How many values a stage selects from."""
    return sum(statistic.reduce == "kth" for statistic in stage) * len(job.experts)


def _histograms(job: Job, threads: int) -> int:
    """Bytes of the histograms that are kept from tile to tile of tensors of which samples are taken."""
    if job.output.numel < SAMPLED_FROM:
        return 0
    return min(KEPT, threads) * _HISTOGRAM * max((_selections(job, stage) for stage in job.stages), default=0)


def _adding(job: Job, stage: Sequence[Statistic], threads: int) -> int:
    """Bytes for statistics of matrices: groups of rows, what each of them gives, and what is known already."""
    largest = 8 * sum(statistic.numbers(_needs(job)) for statistic in stage)
    if not largest:
        return 0
    block = row_block(job.columns)
    size = min(job.output.numel, max(1, MATRIX_TILE // block) * block)
    flying = _flying(job, size, threads)
    # What is finished waits with what is under way, and one is being added to the sum.
    waiting = min(2 * threads, -(-job.output.numel // max(1, size))) + 2
    decoded = job.operands.real.itemsize * size * (3 * len(job.experts) + 2)
    return _scratch(job, size, flying) + flying * decoded + waiting * largest + _matrices(job) // 3


def _matrices(job: Job) -> int:
    """Bytes of all statistics of matrices of one job, and twice that for what is derived from them."""
    needs = _needs(job)
    return 3 * 8 * sum(s.numbers(needs) for stage in job.stages for s in stage if s.reduce == "matrix")


def _needs(job: Job) -> Needs:
    further = tuple(source.numel for sources in job.extras.values() for source in sources)
    return Needs(job.output.shape, len(job.experts), job.operands.real.itemsize, further, job.values)


def _total(numel: int) -> int:
    """Bytes of one selection's accumulator."""
    return _HISTOGRAM + 4 * min(numel, SIDE_TOTAL)


def _rows(job: Job, piece: int = 0) -> int:
    """Bytes for one group of rows, or a ``piece``: decoded, with a field, ranks and what a function of rows makes."""
    group = piece or min(job.output.numel, row_block(job.columns))
    total = group * 8 * ROW_COPIES * (len(job.experts) + 1)
    if job.method is not None and job.method.spreads:
        from rlmerge.kernels.ranks import scratch_bytes

        total += scratch_bytes(job.columns)
    return total


def _arrays(job: Job) -> int:
    """Bytes of a formula's intermediate arrays where no kernel keeps them in registers: one block at a time."""
    if job.whole or job.method is None or job.method.is_compiled(job.values):
        return 0
    return min(job.output.numel, BLOCK) * 8 * ARRAYS * (len(job.experts) + 1)


def _encoding(jobs: Sequence[Job]) -> int:
    """Bytes for the tensor that is written as its base stores it, one at a time."""
    encoded = [job for job in jobs if job.encoder is not None]
    if not encoded:
        return 0
    from .like_base import encoding_memory

    return max(encoding_memory(job.encoder, len(job.experts)) for job in encoded if job.encoder is not None)


def _account(job: Job) -> int:
    """Bytes of the sums by which a tensor's merge is accounted for, kept until all of it is merged."""
    return 8 * 5 * len(job.experts) * -(-job.output.numel // ACCOUNT_BLOCK)


def _blocks(job: Job) -> int:
    """Bytes by way of which a thread reads the inputs, where it does so a block at a time."""
    return 0 if job.whole or job.extras else reading_memory(job.sources)


def _draws(job: Job, threads: int) -> int:
    """Bytes of the random numbers that recipes side by side have in common."""
    return threads * 4 * ACCOUNT_BLOCK * len(job.experts)


def _held(job: Job) -> int:
    """Bytes of statistics that are kept until the end of the run: a few numbers a tensor and expert."""
    return 64 * sum(len(stage) for stage in job.stages) * len(job.experts)


def _wide(jobs: Sequence[Job]) -> int:
    """Bytes that statistics over the model add while they are gathered, and row-wise values of the largest tensor."""
    kept = 0
    for job in jobs:
        rows = sum(s.reduce == "rows" for stage in job.stages for s in stage)
        kept = max(kept, rows * 8 * 3 * len(job.experts) * (job.output.numel // max(1, job.columns)))
    return kept
