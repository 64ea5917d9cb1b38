"""Statements of section 3.1 and Table 1 about the simulated metrics."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import sqrt

from rlmerge_lab.scaling import article
from rlmerge_lab.scaling.studies.sparsity import FIXED_ENTRIES, ScaleRow, SparsityStudy
from rlmerge_lab.scaling.verdict import Rule, Verdict, graded, holds

Study = SparsityStudy
_PRINTED = {row.billions: row for row in article.TABLE_1}


def _within(row: ScaleRow, study: Study, ours: float, ours_std: float, printed: float, printed_std: float) -> bool:
    """Whether two means of few trials agree within three standard errors of their difference."""
    return abs(ours - printed) <= 3 * sqrt(printed_std**2 / article.TRIALS + ours_std**2 / study.trials)


def l0_matches(study: Study) -> int:
    """At how many sizes our L0, on vectors that grow with the model, agrees with the printed one."""
    printed = [(row, _PRINTED[row.billions]) for row in study.rows]
    return sum(_within(r, study, r.l0.mean, r.l0.std, p.l0, p.l0_std) for r, p in printed)


def fixed_matches(study: Study) -> int:
    """The same at a fixed length."""
    printed = [(row, _PRINTED[row.billions]) for row in study.rows]
    return sum(_within(r, study, r.l0_fixed.mean, r.l0_fixed.std, p.l0, p.l0_std) for r, p in printed)


def gini_matches(study: Study) -> int:
    """At how many sizes our Gini agrees with the printed one."""
    printed = [(row, _PRINTED[row.billions]) for row in study.rows]
    return sum(_within(r, study, r.gini.mean, r.gini.std, p.gini, p.gini_std) for r, p in printed)


def _largest(study: Study, ours: Callable[[ScaleRow], float], printed: Callable[[article.SparsityRow], float]) -> float:
    return max(abs(ours(row) - printed(_PRINTED[row.billions])) for row in study.rows)


def _kurtosis_ratio(study: Study) -> float:
    ratios = [row.kurtosis.mean / _PRINTED[row.billions].kurtosis for row in study.rows]
    return max(max(ratio, 1 / ratio) for ratio in ratios)


def _at(study: Study, billions: float) -> ScaleRow:
    return next(row for row in study.rows if row.billions == billions)


def _rises(study: Study) -> bool:
    first, last = study.rows[0], study.rows[-1]
    return all(
        getattr(last, metric).mean > getattr(first, metric).mean for metric in ("l0", "gini", "kurtosis", "top1")
    )


def _falls(values: list[float]) -> int:
    return sum(after < before for before, after in pairwise(values))


_FALLS = sum(_falls([row[i] for row in article.TABLE_1]) for i in (1, 3, 5, 6))

RULES: tuple[Rule[Study], ...] = (
    Rule(
        "Gini of the task vectors rises from 1B to 405B",
        "Table 1",
        "0.9268 to 0.9940",
        lambda s: f"{s.rows[0].gini.mean:.4f} to {s.rows[-1].gini.mean:.4f}",
        graded(lambda s: gini_matches(s) == len(s.rows), lambda s: gini_matches(s) >= 0.7 * len(s.rows)),
        lambda s: (
            f"{gini_matches(s)} of {len(s.rows)} sizes agree within three standard errors, none differs by more than "
            f"{_largest(s, lambda r: r.gini.mean, lambda p: p.gini):.4f}. A log-normal's Gini depends only on the "
            "share "
            "of zeros, so this column shows what the generator was fed: the law through the two calibration points."
        ),
    ),
    Rule(
        "L0 sparsity rises from 1B to 405B",
        "Table 1",
        "0.9139 to 0.9970",
        lambda s: f"{s.rows[0].l0.mean:.4f} to {s.rows[-1].l0.mean:.4f}",
        holds(lambda s: l0_matches(s) >= 0.9 * len(s.rows), Verdict.IN_KIND),
        lambda s: (
            f"The paper does not print how long its vectors are. With 10,000 entries per billion parameters, at most a "
            f"million, {l0_matches(s)} of {len(s.rows)} sizes agree within three standard errors; with "
            f"{FIXED_ENTRIES:,} "
            f"entries at every size only {fixed_matches(s)} do."
        ),
    ),
    Rule(
        "Top-1 % mass rises from 1B to 405B",
        "Table 1",
        "0.3998 to 0.9272",
        lambda s: f"{s.rows[0].top1.mean:.4f} to {s.rows[-1].top1.mean:.4f}",
        holds(lambda s: _largest(s, lambda r: r.top1.mean, lambda p: p.top1) < 0.06, Verdict.IN_KIND),
        lambda s: (
            f"The largest difference at one size is {_largest(s, lambda r: r.top1.mean, lambda p: p.top1):.3f}; "
            "no spread is printed to judge it by."
        ),
    ),
    Rule(
        "Excess kurtosis rises from 1B to 405B",
        "Table 1",
        "792.6 to 39018.9",
        lambda s: f"{s.rows[0].kurtosis.mean:.0f} to {s.rows[-1].kurtosis.mean:.0f}",
        holds(lambda s: _kurtosis_ratio(s) < 10 and _rises(s), Verdict.IN_KIND),
        lambda s: (
            f"Same order of magnitude at every size (at most a factor {_kurtosis_ratio(s):.1f}). The kurtosis of n "
            "entries "
            "is below n and here is set by the few largest, so it mostly measures the length of the vector."
        ),
    ),
    Rule(
        "All four metrics increase with model size",
        "§3.1",
        "converging evidence",
        lambda s: "all four higher at 405B than at 1B" if _rises(s) else "not all higher at 405B",
        holds(_rises, Verdict.IN_KIND),
        lambda s: (
            f"From end to end, yes, because the share of zeros fed in rises; but the paper's own columns fall "
            f"{_FALLS} times from one size to the next."
        ),
    ),
    Rule(
        "L0 against the maximum measures how sparse an update is",
        "eq. 2",
        "0.994 at 70B",
        lambda s: f"{_at(s, 70).l0.mean:.4f} read where {_at(s, 70).fed:.4f} are zero",
        holds(lambda s: _at(s, 70).l0_dense_real < 0.5),
        lambda s: (
            "The threshold follows the maximum, and the maximum grows with the number of entries. A vector as long as "
            "a "
            f"70B model in which no entry is zero reads {_at(s, 70).l0_dense_real:.4f}."
        ),
    ),
)
