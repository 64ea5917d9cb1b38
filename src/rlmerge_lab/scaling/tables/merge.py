"""Table 2 with the columns that can see dilution."""

from __future__ import annotations

from rlmerge_lab.scaling import article
from rlmerge_lab.scaling.merging import MERGERS
from rlmerge_lab.scaling.studies.merge import MergeStudy
from rlmerge_lab.scaling.table import Table, percent


def tables(study: MergeStudy) -> tuple[Table, ...]:
    return tuple(_level(study, level, index) for index, level in enumerate(article.MERGE_LEVELS))


def _level(study: MergeStudy, level: float, index: int) -> Table:
    rows: list[tuple[str, ...]] = []
    for name in MERGERS:
        score = study.score(name, level)
        cosine, fidelity = article.TABLE_2[name][index] if name in article.TABLE_2 else (None, None)
        rows.append(
            (
                name,
                f"{cosine:.4f}" if cosine is not None else "",
                f"{score.cosine:.4f} ± {score.cosine_std:.3f}",
                f"{fidelity:.4f}" if fidelity is not None else "",
                f"{score.fidelity:.4f} ± {score.fidelity_std:.3f}",
                f"{score.retention:.3f}",
                f"{score.error:.3f}",
            )
        )
    return Table(
        f"table-2-{100 * level:.0f}",
        f"Table 2 at {percent(level, 0)} sparsity, {article.AGENTS} agents",
        ("method", "cos paper", "cos ours", "fid paper", "fid ours", "retention", "relative error"),
        tuple(rows),
        f"RAM's printed mask calls {percent(study.active_at(level))} of the entries active. Retention (1 is ideal) and "
        "relative error (0 is ideal) are on the coordinates that one agent alone moved. Means ± standard deviations of "
        f"{study.trials} trials, {study.entries:,} entries.",
    )
