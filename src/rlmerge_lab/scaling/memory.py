"""Table 4 and Figure 6: peak memory to merge three agents, by the paper's formulas, its table, and our budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rlmerge_lab.report.charts import curve, lines
from rlmerge_lab.report.parts import Picture, Sheet

from . import article
from .architectures import ARCHITECTURES, LLAMA_70B, Architecture
from .verdict import Claim, holds, in_kind

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

    @property
    def llama_70b(self) -> ModelRow:
        return next(row for row in self.models if row.name == LLAMA_70B.name)


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


def claims(study: MemoryStudy) -> tuple[Claim, ...]:
    """Statements of sections 2.5, 3.6 and Table 4 about memory."""
    llama = study.llama_70b
    ratios = tuple(round(row.reduction) for row in study.printed)
    at_405 = next(row.reduction for row in study.printed if row.billions == 405)
    return (
        Claim(
            "Naive peak memory for 3 agents, GB", "Table 4", ", ".join(f"{row.naive:g}" for row in article.TABLE_4),
            ", ".join(f"{row.naive:g}" for row in study.printed),
            holds(all(f"{row.naive:.1f}" == f"{row.naive_printed:.1f}" for row in study.printed)),
            f"(1 + K) · 2 bytes · N. Real shapes: {llama.naive:.0f} GB for {llama.name}.",
        ),
        Claim(
            "Reduction, naive over stream", "Table 4", ", ".join(f"{row.reduction}×" for row in article.TABLE_4),
            ", ".join(f"{ratio}×" for ratio in ratios),
            holds(ratios == tuple(row.reduction for row in article.TABLE_4)),
            "Our naive figure over the printed stream figure; it holds the stream column to nothing.",
        ),
        Claim(
            "Stream peak of 6 GB at 70B by equation 6", "eq. 6, Table 4", "6.0 GB", f"{llama.equation_6:.1f} GB",
            holds(llama.equation_6 <= 6.0),
            f"(1 + 3) · 4 bytes · {' × '.join(map(str, llama.largest_shape))}, the embedding. The printed column is "
            f"{STREAM_FLOOR_GB:g} GB plus four tensors of {', '.join(f'{row.largest:.2f}' for row in study.printed)} "
            "GB, less than the largest tensor of the real models below.",
        ),
        Claim(
            "270× at 405B", "§3.6", "270×", f"{at_405:.0f}×", holds(round(at_405) == 270),
            "The text contradicts its own table: 3240 / 18.",
        ),
        Claim(
            "Merging 70B is feasible in under 6 GB", "§2.5, §4", "< 6 GB", f"{llama.planned:.2f} GB planned",
            in_kind(llama.planned < 6.0),
            "Not tensor by tensor, but in tiles: an elementwise method may be cut inside a tensor without changing a "
            f"bit, so memory is a budget ({study.budget / 2**20:.0f} MiB by default, {llama.tiles} tiles for the "
            "largest tensor) and no property of the model. Planned, not measured here.",
        ),
    )  # fmt: skip


def tables(study: MemoryStudy) -> tuple[Sheet, ...]:
    """Table 4 taken apart, and the same question for real shapes."""
    printed = Sheet(
        f"Table 4. Memory to merge {study.agents} agents, GB",
        ("size", "fp16", "naive paper", "naive ours", "stream paper", "tensor it implies", "reduction paper", "ours"),
        [
            (
                f"{row.billions:g}B",
                f"{row.fp16:.1f}",
                f"{row.naive_printed:.1f}",
                f"{row.naive:.1f}",
                f"{row.stream_printed:.1f}",
                f"{row.largest:.2f}",
                f"{paper.reduction}×",
                f"{row.reduction:.1f}×",
            )
            for row, paper in zip(study.printed, article.TABLE_4, strict=True)
        ],
        f"The stream column is {STREAM_FLOOR_GB:g} GB plus (1 + K) tensors of the implied size; equation 6 has no "
        "constant.",
        "table-4",
    )
    models = Sheet(
        f"The same for real shapes, {study.agents} agents, GB",
        ("model", "parameters", "largest tensor", "shape", "naive", "equation 6", "rlmerge, planned", "tiles"),
        [
            (
                model.name,
                f"{model.parameters / 1e9:.2f}B",
                model.largest_tensor.removeprefix("model.").removesuffix(".weight"),
                " × ".join(map(str, model.largest_shape)),
                f"{model.naive:.1f}",
                f"{model.equation_6:.1f}",
                f"{model.planned:.2f}",
                str(model.tiles),
            )
            for model in study.models
        ],
        "Planned: the tile budget of an elementwise merge, computed from shapes and not measured here. Tiles: pieces "
        "the largest tensor is cut into.",
        "table-4-models",
    )
    return printed, models


def pictures(study: MemoryStudy) -> tuple[Picture, ...]:
    """Figure 6: peak memory by model size."""
    models = [(m.parameters / 1e9, m) for m in sorted(study.models, key=lambda m: m.parameters)]
    llama = study.llama_70b
    return (
        lines(
            "figure-6",
            "Figure 6. Peak memory to merge three agents",
            f"Loading every model grows with its size, {llama.naive:.0f} GB at 70B. Equation 6 follows the largest "
            f"tensor of real models, {llama.equation_6:.1f} GB at 70B, above the paper's printed 6 GB. rlmerge's "
            f"planned budget is flat at {llama.planned:.2f} GB.",
            [
                curve("every model in memory", 10, [(x, m.naive) for x, m in models]),
                curve("equation 6, real shapes", 1, [(x, m.equation_6) for x, m in models]),
                curve("the paper's stream column", 4, [(row.billions, row.stream_printed) for row in study.printed]),
                curve("rlmerge's budget, planned", 0, [(x, m.planned) for x, m in models]),
            ],
            x_label="billions of parameters",
            y_label="GB",
            log="xy",
        ),
    )
