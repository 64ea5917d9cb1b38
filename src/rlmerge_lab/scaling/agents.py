"""Figure 5: overlap of the simulated agents' supports across model scales, beside what chance alone gives."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np

from rlmerge.report.rows import stack_plot
from rlmerge_lab.report.charts import curve, lines
from rlmerge_lab.report.parts import Picture, Sheet

from . import article
from .simulation import CALIBRATED, Floats, Supports, active_entries, cosine, norm, rng, task_vectors
from .verdict import Claim, in_kind, percent

STUDY = 5
ENTRIES = 100_000


@dataclass(frozen=True, slots=True)
class AgentsRow:
    """Means over trials and pairs. ``shared`` + ``unique`` = 1 over positions active in any agent.

    ``jaccard_chance`` is pq / (p + q - pq) for independent supports of the same density; ``cosine_null_std`` the
    standard deviation of the cosine under random signs on the same supports; ``cosine_std`` what the pairs spread.
    """

    billions: float
    active: float
    jaccard: float
    jaccard_chance: float
    cosine: float
    cosine_std: float
    cosine_null_std: float
    shared: float
    unique: float


@dataclass(frozen=True, slots=True)
class AgentsStudy:
    seed: int
    trials: int
    entries: int
    independent: tuple[AgentsRow, ...]
    disjoint: tuple[AgentsRow, ...]


def run(seed: int = 0, trials: int = article.TRIALS, entries: int = ENTRIES) -> AgentsStudy:
    """Both readings of "20 % shared, 80 % unique" at the ten sizes of Table 1."""

    def rows(supports: Supports) -> tuple[AgentsRow, ...]:
        sizes = (row.billions for row in article.TABLE_1)
        return tuple(_row(seed, index, billions, trials, entries, supports) for index, billions in enumerate(sizes))

    return AgentsStudy(seed, trials, entries, rows("independent"), rows("disjoint"))


def _row(seed: int, index: int, billions: float, trials: int, entries: int, supports: Supports) -> AgentsRow:
    active = active_entries(entries, CALIBRATED.at(billions))
    pairs: list[tuple[float, float, float]] = []
    shared: list[float] = []
    for trial in range(trials):
        tau = task_vectors(rng(seed, STUDY, index, trial), entries, active, supports=supports)
        pairs += [overlap(tau[i], tau[j]) for i, j in combinations(range(len(tau)), 2)]
        count = (tau != 0).sum(axis=0)
        shared.append(float((count >= 2).sum() / (count >= 1).sum()))
    jaccard, cosines, null = np.array(pairs).T
    p = active / entries
    return AgentsRow(
        billions=billions,
        active=p,
        jaccard=float(jaccard.mean()),
        jaccard_chance=p * p / (2 * p - p * p),
        cosine=float(cosines.mean()),
        cosine_std=float(cosines.std()),
        cosine_null_std=float(np.sqrt((null**2).mean())),
        shared=float(np.mean(shared)),
        unique=1.0 - float(np.mean(shared)),
    )


def overlap(a: Floats, b: Floats) -> tuple[float, float, float]:
    """Jaccard of the supports, cosine, and the cosine's standard deviation under random signs, of two vectors [d]."""
    both, either = (a != 0) & (b != 0), (a != 0) | (b != 0)
    return float(both.sum() / either.sum()), cosine(a, b), norm(a * b) / (norm(a) * norm(b))


def claims(study: AgentsStudy) -> tuple[Claim, ...]:
    """Statements of section 3.5 and Figure 5 about overlap between agents."""
    rows, first, last = study.independent, study.independent[0], study.independent[-1]
    at_70 = next(row for row in rows if row.billions == 70)
    low = sum(row.jaccard < 0.20 for row in rows)
    never_rises = all(after.jaccard <= before.jaccard for before, after in pairwise(rows))
    # Mean cosines of 3 pairs a trial within four standard errors of zero under random signs.
    null = all(abs(r.cosine) <= 4 * r.cosine_null_std / (3 * study.trials) ** 0.5 for r in rows)
    return (
        Claim(
            "Jaccard of active sets is typically below 0.20", "§3.5", "< 0.20",
            f"{first.jaccard:.3f} at 1B to {last.jaccard:.3f} at 405B",
            in_kind(low >= 0.8 * len(rows)),
            f"{low} of {len(rows)} sizes. It is the 20 % overlap that was put in, 1/9 = 0.111 where the rest is "
            f"disjoint, plus chance collisions ({first.jaccard_chance:.3f} at 1B if nothing were shared).",
        ),
        Claim(
            "Jaccard is stable or slightly decreases with scale", "§3.5, Fig. 5", "stable or decreasing",
            "never rises" if never_rises else "rises somewhere",
            in_kind(never_rises),
            f"With disjoint supports it is constant ({study.disjoint[0].jaccard:.3f} and "
            f"{study.disjoint[-1].jaccard:.3f}); with independent ones chance collisions thin out as vectors are fed "
            "more zeros. Neither says anything about trained agents.",
        ),
        Claim(
            "Cosine between agents remains low", "Fig. 5", "low",
            f"at most {max(abs(row.cosine) for row in rows):.4f}",
            in_kind(null),
            "Zero within its null at every size, since signs and magnitudes are drawn independently even where "
            f"positions are shared (null standard deviation {at_70.cosine_null_std:.4f} for one pair at 70B).",
        ),
        Claim(
            "Shared fractions are small, unique ones dominate", "Fig. 5", "unique dominates",
            f"unique {first.unique:.2f} at 1B, {last.unique:.2f} at 405B",
            in_kind(all(row.unique > 0.5 for row in rows)),
            f"Put in: three agents with 20 % in common leave 12/13 = 0.923 unique; {study.disjoint[-1].unique:.3f} "
            "measured on disjoint supports.",
        ),
    )  # fmt: skip


def tables(study: AgentsStudy) -> tuple[Sheet, ...]:
    """The numbers behind Figure 5."""
    head = ("size", "active", "Jaccard", "by chance", "cosine", "its null", "shared", "unique", "Jaccard, disjoint")
    rows = [
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
    ]
    note = (
        f"Means over 3 pairs and {study.trials} trials of {study.entries:,} entries. 20 % of each support is common; "
        "the rest is drawn by each agent for itself (last column: from parts no other agent may touch). The null is the"
        " standard deviation of one pair's cosine under random signs."
    )
    return (Sheet("Overlap of three simulated agents", head, rows, note, "figure-5"),)


def pictures(study: AgentsStudy) -> tuple[Picture, ...]:
    """Figure 5: similarity across scales, and who shares the active positions."""
    rows, first, last = study.independent, study.independent[0], study.independent[-1]
    similarity = lines(
        "figure-5a",
        "Figure 5a. Similarity of simulated agents",
        f"Jaccard falls from {first.jaccard:.2f} at 1B to {last.jaccard:.2f} at 405B towards 1/9, which disjoint "
        f"supports have at every size; chance alone gives {first.jaccard_chance:.2f} to {last.jaccard_chance:.2f}; the "
        "cosine is zero within its null.",
        [
            curve("Jaccard, own parts random", 1, [(row.billions, row.jaccard) for row in rows]),
            curve("Jaccard, disjoint", 2, [(row.billions, row.jaccard) for row in study.disjoint]),
            curve("Jaccard by chance", 10, [(row.billions, row.jaccard_chance) for row in rows], dashed=True),
            curve("cosine ± 2 null deviations", 0, [(r.billions, r.cosine, 2 * r.cosine_null_std) for r in rows]),
        ],
        x_label="billions of parameters",
        y_label="similarity",
        log="x",
        references=(0.0,),
    )
    title = "Figure 5b. Who shares the active positions"
    note = (
        f"Of the positions that any agent moved, the share that one alone moved (light) rises from {first.unique:.2f} "
        f"to {last.unique:.2f}; the rest is shared by two or more (dark)."
    )
    names = ("one agent only", "two agents or more")
    sizes = [f"{row.billions:g}B" for row in rows]
    chart = stack_plot(title, note, sizes, [(row.unique, row.shared) for row in rows], names)
    sheet = Sheet(title, ("size", *names), [(f"{r.billions:g}B", percent(r.unique), percent(r.shared)) for r in rows])
    return similarity, Picture("figure-5b", title, note, chart, sheet)
