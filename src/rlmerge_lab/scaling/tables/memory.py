"""Table 4 taken apart, and the same question for real shapes."""

from __future__ import annotations

from rlmerge_lab.scaling import article
from rlmerge_lab.scaling.studies.memory import STREAM_FLOOR_GB, MemoryStudy
from rlmerge_lab.scaling.table import Table


def tables(study: MemoryStudy) -> tuple[Table, ...]:
    printed = Table(
        "table-4",
        f"Table 4. Memory to merge {study.agents} agents, GB",
        ("size", "fp16", "naive paper", "naive ours", "stream paper", "tensor it implies", "reduction paper", "ours"),
        tuple(
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
        ),
        f"The stream column is {STREAM_FLOOR_GB:g} GB plus (1 + K) tensors of the implied size; equation 6 has no "
        "constant.",
    )
    models = Table(
        "table-4-models",
        f"The same for real shapes, {study.agents} agents, GB",
        ("model", "parameters", "largest tensor", "shape", "naive", "equation 6", "rlmerge, planned", "tiles"),
        tuple(
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
        ),
        "Planned: the tile budget of an elementwise merge, computed from shapes and not measured here. Tiles: pieces "
        "the "
        "largest tensor is cut into.",
    )
    return printed, models
