"""The honest end of a search: its winner on items that chose nothing, beside what it has to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rlmerge.evaluate.evaluator import Score
from rlmerge.evaluate.statistics import Interval, percentiles, resample, verdict
from rlmerge.frozen import frozen

from .objectives import Objective, Standards
from .results import Comparison, Correlation, Finalist

RANKED = 5
"""Candidates below which no rank correlation is told."""


@frozen(slots=True)
class Entrant:
    """A model that is to be confirmed: what it scored by objective on the items it was chosen by."""

    name: str
    role: str
    dev: float


def confirm(
    scores: Mapping[str, Mapping[str, Score]],
    entrants: Sequence[Entrant],
    objectives: Sequence[Objective],
    standards: Standards,
) -> tuple[list[Finalist], list[Comparison], list[str]]:
    """Test scores of the entrants with 95 % intervals, the first against every other, and warnings.

    ``scores`` [task][model] are those of the test items; every figure is computed on the same bootstrap samples of
    them, so differences are paired.
    """
    values = {task: {name: score.value for name, score in row.items()} for task, row in scores.items()}
    draws: dict[str, Mapping[str, np.ndarray]] = {}
    warnings: list[str] = []
    for task, row in scores.items():
        found = resample(row)
        draws[task] = found.draws
        warnings += [found.warning] if found.warning else []
    first = objectives[0]
    finalists: list[Finalist] = []
    for entrant in entrants:
        exact = float(first.of_scores(values, entrant.name, standards))
        interval = percentiles(exact, first.of_scores(draws, entrant.name, standards))
        row = {task: row[entrant.name] for task, row in values.items()}
        finalists.append(Finalist(entrant.name, entrant.role, entrant.dev, interval, row))
    winner, *others = entrants
    comparisons: list[Comparison] = []
    for objective in objectives:
        for other in others:
            exact, spread = (
                objective.of_scores(table, winner.name, standards) - objective.of_scores(table, other.name, standards)
                for table in (values, draws)
            )
            difference: Interval = percentiles(float(exact), spread)
            comparisons.append(Comparison(other.name, objective.name, difference, verdict(difference, True)))
    return finalists, comparisons, warnings


def correlation(proxy: str, objective: str, pairs: Sequence[tuple[float, float]]) -> Correlation | None:
    """Spearman's rank correlation of (proxy, objective) pairs; None where there are too few of them."""
    if len(pairs) < RANKED:
        return None
    a, b = (_ranks(column) for column in zip(*pairs, strict=True))
    constant = np.ptp(a) == 0 or np.ptp(b) == 0
    return Correlation(proxy, objective, None if constant else float(np.corrcoef(a, b)[0, 1]), len(pairs))


def _ranks(values: Sequence[float]) -> np.ndarray:
    """Ranks from 0, equal values sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts + 1) / 2)[inverse]
