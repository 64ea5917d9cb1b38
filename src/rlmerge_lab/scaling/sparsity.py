"""Table 1 and Figure 1: sparsity metrics of simulated task vectors from 1B to 405B.

The paper feeds its generator a share of zeros from the law through its two calibration points; it does not print how
long its vectors are. Entries proportional to the model, 10,000 per billion parameters up to a million, is our
reconstruction: with it the printed L0 comes out at every size, with a fixed length only at some.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt

import numpy as np

from rlmerge.geometry.vector import VectorMetrics, measure
from rlmerge.report.curves import Curve
from rlmerge_lab.report.charts import curve, lines
from rlmerge_lab.report.parts import Picture, Sheet

from . import article
from .simulation import (
    CALIBRATED,
    active_entries,
    gini_of_zero_share,
    l0_of_zero_share,
    rng,
    task_vector,
    zero_share_of_gini,
)
from .verdict import Claim, Verdict, holds, in_kind, plus_minus

STUDY = 1
ENTRIES_PER_BILLION = 10_000
MOST_ENTRIES = 1_000_000
FIXED_ENTRIES = 100_000


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and population standard deviation over trials."""

    mean: float
    std: float


@dataclass(frozen=True, slots=True)
class ScaleRow:
    """One model size. ``fed`` is the share of zeros put in; ``fed_by_gini`` is what the paper's printed Gini implies.

    ``l0_fixed`` is the same L0 when every vector has 100 000 entries, ``l0_dense_real`` what L0 reads for a vector as
    long as the real model in which nothing is zero (closed form).
    """

    billions: float
    entries: int
    fed: float
    l0: Spread
    gini: Spread
    kurtosis: Spread
    top1: Spread
    top5: Spread
    l0_fixed: Spread
    fed_by_gini: float
    l0_dense_real: float


@dataclass(frozen=True, slots=True)
class SparsityStudy:
    seed: int
    trials: int
    rows: tuple[ScaleRow, ...]


def entries_at(billions: float) -> int:
    """Length of the simulated vector for a model of this size."""
    return int(min(ENTRIES_PER_BILLION * billions, MOST_ENTRIES))


def run(seed: int = 0, trials: int = article.TRIALS) -> SparsityStudy:
    """Simulate all ten sizes."""
    rows: list[ScaleRow] = []
    for index, printed in enumerate(article.TABLE_1):
        billions, zeros = printed.billions, CALIBRATED.at(printed.billions)
        grown = _trials(seed, index, 0, trials, entries_at(billions), zeros)
        fixed = _trials(seed, index, 1, trials, FIXED_ENTRIES, zeros)
        rows.append(
            ScaleRow(
                billions=billions,
                entries=entries_at(billions),
                fed=zeros,
                l0=_spread([m.l0_share for m in grown]),
                gini=_spread([m.gini for m in grown]),
                kurtosis=_spread([m.excess_kurtosis for m in grown]),
                top1=_spread([m.top1_mass for m in grown]),
                top5=_spread([m.top5_mass for m in grown]),
                l0_fixed=_spread([m.l0_share for m in fixed]),
                fed_by_gini=zero_share_of_gini(printed.gini),
                l0_dense_real=l0_of_zero_share(0.0, billions * 1e9),
            )
        )
    return SparsityStudy(seed, trials, tuple(rows))


def _trials(seed: int, scale: int, variant: int, trials: int, entries: int, zeros: float) -> list[VectorMetrics]:
    active = active_entries(entries, zeros)
    return [measure(task_vector(rng(seed, STUDY, scale, variant, t), entries, active)) for t in range(trials)]


def _spread(values: list[float]) -> Spread:
    return Spread(float(np.mean(values)), float(np.std(values)))


_PRINTED = {row.billions: row for row in article.TABLE_1}


def claims(study: SparsityStudy) -> tuple[Claim, ...]:
    """Statements of section 3.1 and Table 1 about the simulated metrics."""
    rows, first, last = study.rows, study.rows[0], study.rows[-1]
    at_70 = next(row for row in rows if row.billions == 70)
    gini = _matches(study, lambda r: r.gini, lambda p: (p.gini, p.gini_std))
    l0 = _matches(study, lambda r: r.l0, lambda p: (p.l0, p.l0_std))
    fixed = _matches(study, lambda r: r.l0_fixed, lambda p: (p.l0, p.l0_std))
    gini_off = max(abs(r.gini.mean - _PRINTED[r.billions].gini) for r in rows)
    top1_off = max(abs(r.top1.mean - _PRINTED[r.billions].top1) for r in rows)
    ratios = [row.kurtosis.mean / _PRINTED[row.billions].kurtosis for row in rows]
    kurtosis_off = max(max(ratio, 1 / ratio) for ratio in ratios)
    rises = all(getattr(last, m).mean > getattr(first, m).mean for m in ("l0", "gini", "kurtosis", "top1"))
    falls = sum(after[i] < before[i] for before, after in pairwise(article.TABLE_1) for i in (1, 3, 5, 6))
    return (
        Claim(
            "Gini of the task vectors rises from 1B to 405B", "Table 1", "0.9268 to 0.9940",
            f"{first.gini.mean:.4f} to {last.gini.mean:.4f}",
            Verdict.REPRODUCED if gini == len(rows) else in_kind(gini >= 0.7 * len(rows)),
            f"{gini} of {len(rows)} sizes agree within three standard errors, none differs by more than {gini_off:.4f}."
            " A log-normal's Gini depends only on the share of zeros, so this column shows what the generator was fed:"
            " the law through the two calibration points.",
        ),
        Claim(
            "L0 sparsity rises from 1B to 405B", "Table 1", "0.9139 to 0.9970",
            f"{first.l0.mean:.4f} to {last.l0.mean:.4f}",
            in_kind(l0 >= 0.9 * len(rows)),
            "The paper does not print how long its vectors are. With 10,000 entries per billion parameters, at most a"
            f" million, {l0} of {len(rows)} sizes agree within three standard errors; with {FIXED_ENTRIES:,} entries at"
            f" every size only {fixed} do.",
        ),
        Claim(
            "Top-1 % mass rises from 1B to 405B", "Table 1", "0.3998 to 0.9272",
            f"{first.top1.mean:.4f} to {last.top1.mean:.4f}",
            in_kind(top1_off < 0.06),
            f"The largest difference at one size is {top1_off:.3f}; no spread is printed to judge it by.",
        ),
        Claim(
            "Excess kurtosis rises from 1B to 405B", "Table 1", "792.6 to 39018.9",
            f"{first.kurtosis.mean:.0f} to {last.kurtosis.mean:.0f}",
            in_kind(kurtosis_off < 10 and rises),
            f"Same order of magnitude at every size (at most a factor {kurtosis_off:.1f}). The kurtosis of n entries is"
            " below n and here is set by the few largest, so it mostly measures the length of the vector.",
        ),
        Claim(
            "All four metrics increase with model size", "§3.1", "converging evidence",
            "all four higher at 405B than at 1B" if rises else "not all higher at 405B",
            in_kind(rises),
            "From end to end, yes, because the share of zeros fed in rises; but the paper's own columns fall"
            f" {falls} times from one size to the next.",
        ),
        Claim(
            "L0 against the maximum measures how sparse an update is", "eq. 2", "0.994 at 70B",
            f"{at_70.l0.mean:.4f} read where {at_70.fed:.4f} are zero",
            holds(at_70.l0_dense_real < 0.5),
            "The threshold follows the maximum, and the maximum grows with the number of entries. A vector as long as a"
            f" 70B model in which no entry is zero reads {at_70.l0_dense_real:.4f}.",
        ),
    )  # fmt: skip


def _matches(
    study: SparsityStudy,
    ours: Callable[[ScaleRow], Spread],
    printed: Callable[[article.SparsityRow], tuple[float, float]],
) -> int:
    """At how many sizes two means of few trials agree within three standard errors of their difference."""
    pairs = [(ours(row), *printed(_PRINTED[row.billions])) for row in study.rows]
    return sum(
        abs(found.mean - mean) <= 3 * sqrt(std**2 / article.TRIALS + found.std**2 / study.trials)
        for found, mean, std in pairs
    )


def tables(study: SparsityStudy) -> tuple[Sheet, ...]:
    """Table 1, and what was fed in beside what is read out."""
    pairs = list(zip(study.rows, article.TABLE_1, strict=True))
    both = (f"{metric} {whose}" for metric in ("L0", "Gini", "kurtosis", "top-1 %") for whose in ("paper", "ours"))
    metrics = Sheet(
        "Table 1. Metrics of simulated task vectors, the paper's and ours",
        ("size", "entries", *both, "top-5 % ours"),
        [
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
        ],
        f"Mean ± standard deviation; trials: {study.trials}. L0: share below 0.01 of the largest magnitude.",
        "table-1",
    )
    fed = Sheet(
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
        [
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
        ],
        "Zeros are fed by the law through 0.85 at 3B and 0.90 at 7B. The last column is closed form: nothing is zero.",
        "table-1-fed",
    )
    return metrics, fed


def pictures(study: SparsityStudy) -> tuple[Picture, ...]:
    """Figure 1: L0 and Gini against model size."""
    first, last = study.rows[0], study.rows[-1]
    closed = [(row.billions, gini_of_zero_share(row.fed)) for row in study.rows]
    l0 = lines(
        "figure-1a",
        "Figure 1a. L0 reads far above the zeros fed in",
        f"Our L0 rises from {first.l0.mean:.3f} to {last.l0.mean:.3f} on the paper's points, while the share of zeros "
        f"fed in rises from {first.fed:.3f} to {last.fed:.3f}, well below, and published measurements of real "
        "checkpoints scatter from 0.36 to 0.92.",
        [
            curve("L0, paper", 1, [(p.billions, p.l0, p.l0_std) for p in article.TABLE_1]),
            curve("L0, ours", 0, [(row.billions, row.l0.mean) for row in study.rows]),
            curve("zeros fed in", 10, [(row.billions, row.fed) for row in study.rows], dashed=True),
            curve("calibration points", 4, article.CALIBRATION),
            *published_ranges("real checkpoints (bf16)", 3),
        ],
        x_label="billions of parameters",
        y_label="share",
        log="x",
    )
    gini = lines(
        "figure-1b",
        "Figure 1b. Gini shows what was fed in",
        "Our Gini, the paper's Gini and the closed form for the zeros fed in coincide.",
        [
            curve("paper", 1, [(p.billions, p.gini, p.gini_std) for p in article.TABLE_1]),
            curve("ours", 0, [(row.billions, row.gini.mean) for row in study.rows]),
            curve("closed form of the zeros fed in", 10, closed, dashed=True),
        ],
        x_label="billions of parameters",
        y_label="Gini of |τ|",
        log="x",
    )
    return l0, gini


def published_ranges(name: str, color: int, *, changed: bool = False) -> list[Curve]:
    """The share of unchanged weights of real checkpoints, or of ``changed`` ones, from lowest to highest."""
    ends = [(m.billions, 1 - m.high, 1 - m.low) if changed else (m.billions, m.low, m.high) for m in article.PUBLISHED]
    return [curve(name, color, [(x, low), (x, high)]) for x, low, high in ends]
