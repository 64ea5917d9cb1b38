"""Figure 5: overlap of the simulated agents' supports across model scales, beside what chance alone gives."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from rlmerge_lab.scaling import article
from rlmerge_lab.scaling.dot import cosine, norm
from rlmerge_lab.scaling.generator import Floats, Supports, active_entries, rng, task_vectors
from rlmerge_lab.scaling.law import through

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
    """Both readings of "20 % shared, 80 % unique" at the ten sizes of Table 1; disjoint only where it fits."""
    fed = through(*article.CALIBRATION)

    def rows(supports: Supports) -> tuple[AgentsRow, ...]:
        return tuple(
            _row(seed, index, row.billions, fed.at(row.billions), trials, entries, supports)
            for index, row in enumerate(article.TABLE_1)
        )

    return AgentsStudy(seed, trials, entries, rows("independent"), rows("disjoint"))


def _row(
    seed: int, index: int, billions: float, zeros: float, trials: int, entries: int, supports: Supports
) -> AgentsRow:
    active = active_entries(entries, zeros)
    pairs: list[tuple[float, float, float]] = []
    shared: list[float] = []
    for trial in range(trials):
        tau = task_vectors(rng(seed, STUDY, index, trial), entries, active, supports=supports)
        pairs += [overlap(tau[i], tau[j]) for i, j in combinations(range(len(tau)), 2)]
        count = (tau != 0).sum(axis=0)
        shared.append(float((count >= 2).sum() / (count >= 1).sum()))
    jaccard, cosine, null = np.array(pairs).T
    p = active / entries
    return AgentsRow(
        billions=billions,
        active=p,
        jaccard=float(jaccard.mean()),
        jaccard_chance=p * p / (2 * p - p * p),
        cosine=float(cosine.mean()),
        cosine_std=float(cosine.std()),
        cosine_null_std=float(np.sqrt((null**2).mean())),
        shared=float(np.mean(shared)),
        unique=1.0 - float(np.mean(shared)),
    )


def overlap(a: Floats, b: Floats) -> tuple[float, float, float]:
    """Jaccard of the supports, cosine, and the cosine's standard deviation under random signs, of two vectors [d]."""
    both, either = (a != 0) & (b != 0), (a != 0) | (b != 0)
    return float(both.sum() / either.sum()), cosine(a, b), norm(a * b) / (norm(a) * norm(b))
