"""The numbers behind Figure 5."""

from __future__ import annotations

from rlmerge_lab.scaling.studies.agents import AgentsStudy
from rlmerge_lab.scaling.table import Table, percent


def tables(study: AgentsStudy) -> tuple[Table, ...]:
    return (
        Table(
            "figure-5",
            "Overlap of three simulated agents",
            ("size", "active", "Jaccard", "by chance", "cosine", "its null", "shared", "unique", "Jaccard, disjoint"),
            tuple(
                (
                    f"{row.billions:g}B",
                    percent(row.active),
                    f"{row.jaccard:.3f}",
                    f"{row.jaccard_chance:.3f}",
                    f"{row.cosine:+.4f}",
                    f"± {row.cosine_null_std:.4f}",
                    f"{row.shared:.3f}",
                    f"{row.unique:.3f}",
                    f"{disjoint.jaccard:.3f}",
                )
                for row, disjoint in zip(study.independent, study.disjoint, strict=True)
            ),
            f"Means over 3 pairs and {study.trials} trials of {study.entries:,} entries. 20 % of each support is "
            "common; "
            "the rest is drawn by each agent for itself (last column: from parts no other agent may touch). The null "
            "is the "
            "standard deviation of one pair's cosine under random signs.",
        ),
    )
