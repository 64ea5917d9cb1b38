"""Statements of sections 2.5, 3.6 and Table 4 about memory."""

from __future__ import annotations

from rlmerge_lab.scaling import article
from rlmerge_lab.scaling.studies.memory import STREAM_FLOOR_GB, MemoryStudy, ModelRow, PrintedRow
from rlmerge_lab.scaling.verdict import Rule, Verdict, holds

Study = MemoryStudy


def _printed(study: Study, billions: float) -> PrintedRow:
    return next(row for row in study.printed if row.billions == billions)


def _model(study: Study, name: str) -> ModelRow:
    return next(row for row in study.models if row.name == name)


def _naive_agrees(study: Study) -> bool:
    return all(f"{row.naive:.1f}" == f"{row.naive_printed:.1f}" for row in study.printed)


def _ratios(study: Study) -> tuple[int, ...]:
    return tuple(round(row.reduction) for row in study.printed)


RULES: tuple[Rule[Study], ...] = (
    Rule(
        "Naive peak memory for 3 agents, GB",
        "Table 4",
        ", ".join(f"{row.naive:g}" for row in article.TABLE_4),
        lambda s: ", ".join(f"{row.naive:g}" for row in s.printed),
        holds(_naive_agrees),
        lambda s: f"(1 + K) · 2 bytes · N. Real shapes: {_model(s, 'Llama-3.1-70B').naive:.0f} GB for Llama-3.1-70B.",
    ),
    Rule(
        "Reduction, naive over stream",
        "Table 4",
        ", ".join(f"{row.reduction}×" for row in article.TABLE_4),
        lambda s: ", ".join(f"{ratio}×" for ratio in _ratios(s)),
        holds(lambda s: _ratios(s) == tuple(row.reduction for row in article.TABLE_4)),
        lambda s: "Our naive figure over the printed stream figure; it holds the stream column to nothing.",
    ),
    Rule(
        "Stream peak of 6 GB at 70B by equation 6",
        "eq. 6, Table 4",
        "6.0 GB",
        lambda s: f"{_model(s, 'Llama-3.1-70B').equation_6:.1f} GB",
        holds(lambda s: _model(s, "Llama-3.1-70B").equation_6 <= 6.0),
        lambda s: (
            f"(1 + 3) · 4 bytes · {' × '.join(map(str, _model(s, 'Llama-3.1-70B').largest_shape))}, the embedding. The "
            "printed "
            f"column is {STREAM_FLOOR_GB:g} GB plus four tensors of "
            f"{', '.join(f'{row.largest:.2f}' for row in s.printed)} GB, less than the largest tensor of the real "
            "models below."
        ),
    ),
    Rule(
        "270× at 405B",
        "§3.6",
        "270×",
        lambda s: f"{_printed(s, 405).reduction:.0f}×",
        holds(lambda s: round(_printed(s, 405).reduction) == 270),
        lambda s: "The text contradicts its own table: 3240 / 18.",
    ),
    Rule(
        "Merging 70B is feasible in under 6 GB",
        "§2.5, §4",
        "< 6 GB",
        lambda s: f"{_model(s, 'Llama-3.1-70B').planned:.2f} GB planned",
        holds(lambda s: _model(s, "Llama-3.1-70B").planned < 6.0, Verdict.IN_KIND),
        lambda s: (
            "Not tensor by tensor, but in tiles: an elementwise method may be cut inside a tensor without changing a "
            "bit, so "
            f"memory is a budget ({s.budget / 2**20:.0f} MiB by default, "
            f"{_model(s, 'Llama-3.1-70B').tiles} tiles for the largest tensor) and no property of the model. Planned, "
            "not "
            "measured here."
        ),
    ),
)
