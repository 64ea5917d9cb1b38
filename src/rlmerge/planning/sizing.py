"""How large tiles may be, so that all that is in flight fits the memory budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlmerge.errors import RequestError
from rlmerge.kernels.jit import BLOCK
from rlmerge.kernels.select import SIDE_CAPACITY, SIDE_TOTAL
from rlmerge.kernels.sinks import BINS

if TYPE_CHECKING:
    from .plan import Plan, TensorPlan

LARGEST_TILE = 1 << 20
"""Elements; larger tiles leave the processor's caches and gain nothing."""

_QUEUE = 4
"""Finished tiles that may wait for the writer."""


@dataclass(frozen=True)
class Sizing:
    """``tile`` elements per tile (a multiple of ``BLOCK``), ``buffers`` output tiles in flight, ``peak`` bytes."""

    tile: int
    buffers: int
    peak: int


def sizing(plan: Plan) -> Sizing:
    """The largest tile whose peak stays in the budget. RequestError when not even the smallest does."""
    threads = plan.options.threads
    buffers = threads + _QUEUE
    fixed, per_element = _costs(plan)
    whole = max(t.output.numel for t in plan.tensors.values()) if plan.method.whole and plan.tensors else 0
    tile = LARGEST_TILE
    while True:
        piece = max(tile, whole)
        peak = fixed + buffers * piece * _out_size(plan) + threads * int(piece * per_element)
        if peak <= plan.options.memory or tile == BLOCK:
            break
        tile //= 2
    if peak > plan.options.memory:
        needed = -(-peak // 2**20)
        raise RequestError(
            f"this merge needs about {needed} MiB, but the budget is {plan.options.memory // 2**20} MiB",
            hint=f"Give --memory {needed}MiB, or fewer --workers.",
        )
    return Sizing(tile, buffers, peak)


def _out_size(plan: Plan) -> int:
    return max((t.output.dtype.itemsize for t in plan.tensors.values() if t.action == "merge"), default=1)


def _costs(plan: Plan) -> tuple[int, float]:
    """Fixed bytes, and bytes per element of a tile and worker beyond its output buffer."""
    threads, experts = plan.options.threads, len(plan.experts)
    statistics = [statistic for stage in plan.stages for statistic in stage]
    merged = [t for t in plan.tensors.values() if t.action == "merge"]
    fixed = 0
    per_element = 0.0
    selections = max((sum(s.reduce == "kth" for s in stage) for stage in plan.stages), default=0)
    if selections:
        fixed += selections * experts * (BINS * 8 * (threads + 2) + SIDE_CAPACITY * 4 * threads + SIDE_TOTAL * 4)
    if any(statistic.reduce == "rows" for statistic in statistics):
        # Rows are never split: float64 copies of base, experts and a few intermediates of at least one row.
        widest = max((t.columns for t in merged), default=1)
        fixed += threads * widest * 8 * 3 * (experts + 1)
        fixed += max((t.output.numel // max(1, t.columns) for t in merged), default=0) * 8 * 3 * experts
        per_element = max(per_element, 8.0 * 3 * (experts + 1))
    if plan.method.rows_field is not None:
        # Groups of rows, decoded, with a field and the integers that a row's ranks are sorted by.
        group = max(BLOCK, *(t.columns for t in merged)) if merged else BLOCK
        fixed += threads * group * 8 * (3 * (experts + 1) + 8)
    if plan.method.whole:
        # Base, experts and task vectors in float32 (or twice that), and a few results of the formula.
        real = max((t.layout.real.itemsize for t in merged), default=4)
        per_element = max(per_element, real * (2.0 * experts + 5))
        # Matrices of another size beside it, and what their sum is solved with, in float64.
        fixed += threads * max((_beside(t) for t in merged), default=0)
    return fixed, per_element


def _beside(tensor: TensorPlan) -> int:
    """Bytes for the further inputs of a whole tensor and five results as large as the largest of them."""
    sizes = [info.numel for infos in tensor.extras.values() for info in infos]
    return 8 * (sum(sizes) + 5 * max(sizes, default=0))
