"""Table 4 and Figure 6: peak memory to merge three agents, by the paper's formulas, its table, and our budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rlmerge_lab.scaling import article
from rlmerge_lab.scaling.shapes import ARCHITECTURES, Architecture

GB = 1e9
BUDGET = 512 * 2**20
"""rlmerge's default memory budget, in bytes."""

STREAM_FLOOR_GB = 2.0
"""What the printed stream column contains beside four tensors: a constant that equation 6 does not have."""

TilePlan = Callable[[Architecture, int], int]


@dataclass(frozen=True, slots=True)
class PrintedRow:
    """One row of Table 4, taken apart. Sizes in GB; ``largest`` is the tensor its stream figure implies (fp32)."""

    billions: float
    fp16: float
    naive: float
    naive_printed: float
    stream_printed: float
    reduction: float
    largest: float


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One real model. ``naive`` and ``equation_6`` follow the paper, ``planned`` is the tile budget; all in GB."""

    name: str
    parameters: int
    largest_tensor: str
    largest_shape: tuple[int, ...]
    naive: float
    equation_6: float
    planned: float
    tiles: int


@dataclass(frozen=True, slots=True)
class MemoryStudy:
    agents: int
    budget: int
    printed: tuple[PrintedRow, ...]
    models: tuple[ModelRow, ...]


def bytes_per_entry(agents: int, itemsize: int = 2) -> int:
    """What a tile holds for each entry: base, experts and result in storage type and in float32."""
    return (agents + 2) * (itemsize + 4)


def tile_budget(budget: int = BUDGET) -> TilePlan:
    """Planned bytes of an elementwise merge: the whole largest tensor where it fits, else the budget, for any model."""

    def planned(model: Architecture, agents: int) -> int:
        return min(budget, model.largest.numel * bytes_per_entry(agents))

    return planned


def run(agents: int = article.AGENTS, budget: int = BUDGET, plan: TilePlan | None = None) -> MemoryStudy:
    """Table 4 from its formulas, and the same for real shapes. ``plan`` gives the bytes a merge of a model needs."""
    plan = plan or tile_budget(budget)
    printed = tuple(_printed_row(row, agents) for row in article.TABLE_4)
    return MemoryStudy(agents, budget, printed, tuple(_model_row(m, agents, plan) for m in ARCHITECTURES))


def _printed_row(row: article.MemoryRow, agents: int) -> PrintedRow:
    fp16 = 2 * row.billions
    naive = (1 + agents) * fp16
    return PrintedRow(
        billions=row.billions,
        fp16=fp16,
        naive=naive,
        naive_printed=row.naive,
        stream_printed=row.stream,
        reduction=naive / row.stream,
        largest=(row.stream - STREAM_FLOOR_GB) / (1 + agents),
    )


def _model_row(model: Architecture, agents: int, plan: TilePlan) -> ModelRow:
    largest = model.largest
    planned = plan(model, agents)
    return ModelRow(
        name=model.name,
        parameters=model.parameters,
        largest_tensor=largest.name,
        largest_shape=largest.shape,
        naive=(1 + agents) * model.parameters * 2 / GB,
        equation_6=(1 + agents) * largest.numel * 4 / GB,
        planned=planned / GB,
        tiles=-(-largest.numel * bytes_per_entry(agents) // planned),
    )
