"""Table 1, and what was fed in beside what is read out."""

from __future__ import annotations

from rlmerge_lab.scaling import article
from rlmerge_lab.scaling.studies.sparsity import FIXED_ENTRIES, SparsityStudy
from rlmerge_lab.scaling.table import Table, plus_minus


def tables(study: SparsityStudy) -> tuple[Table, ...]:
    pairs = list(zip(study.rows, article.TABLE_1, strict=True))
    metrics = Table(
        "table-1",
        "Table 1. Metrics of simulated task vectors, the paper's and ours",
        (
            "size",
            "entries",
            *(f"{metric} {whose}" for metric in ("L0", "Gini", "kurtosis", "top-1 %") for whose in ("paper", "ours")),
            "top-5 % ours",
        ),
        tuple(
            (
                f"{row.billions:g}B",
                f"{row.entries:,}",
                plus_minus(paper.l0, paper.l0_std),
                plus_minus(row.l0.mean, row.l0.std),
                plus_minus(paper.gini, paper.gini_std),
                plus_minus(row.gini.mean, row.gini.std),
                f"{paper.kurtosis:.0f}",
                f"{row.kurtosis.mean:.0f}",
                f"{paper.top1:.4f}",
                f"{row.top1.mean:.4f}",
                f"{row.top5.mean:.4f}",
            )
            for row, paper in pairs
        ),
        f"Mean ± standard deviation; trials: {study.trials}. L0: share below 0.01 of the largest magnitude.",
    )
    fed = Table(
        "table-1-fed",
        "What L0 reads beside what is zero",
        (
            "size",
            "zeros fed in",
            "zeros the paper's Gini implies",
            "L0 paper",
            "L0 ours",
            f"L0 ours at {FIXED_ENTRIES:,} entries",
            "L0 of a dense vector of the real size",
        ),
        tuple(
            (
                f"{row.billions:g}B",
                f"{row.fed:.4f}",
                f"{row.fed_by_gini:.4f}",
                f"{paper.l0:.4f}",
                f"{row.l0.mean:.4f}",
                f"{row.l0_fixed.mean:.4f}",
                f"{row.l0_dense_real:.5f}",
            )
            for row, paper in pairs
        ),
        "Zeros are fed by the law through 0.85 at 3B and 0.90 at 7B. The last column is closed form: nothing is zero.",
    )
    return metrics, fed
