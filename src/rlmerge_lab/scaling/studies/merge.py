"""Table 2, Figures 2 and 3: merge quality by the paper's two metrics, and by two that can see dilution.

The paper's oracle is proportional to the sum of the task vectors, so a plain average scores a cosine of one by
definition, however small it made each agent's update. Retention asks what an agent gets back where only it moved.
TIES and DARE densities are not printed; theirs are the papers' own (top 20 %, drop 90 %).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlmerge_lab.scaling.dot import cosine, dot, norm
from rlmerge_lab.scaling.generator import Floats, active_entries, rng, task_vectors
from rlmerge_lab.scaling.merging import MERGERS, active_masks

STUDY = 3
ENTRIES = 20_000
TRIALS = 20
SWEEP = (0.60, 0.65, 0.70, 0.75, 0.80, 0.85, 0.88, 0.90, 0.92, 0.93, 0.95, 0.97)


@dataclass(frozen=True, slots=True)
class Score:
    """Means over trials of one method at one sparsity; ``cosine_std`` and ``fidelity_std`` are over trials.

    ``retention`` is <merged, tau_k> / |tau_k|^2 and ``error`` |merged - tau_k| / |tau_k|, both over the coordinates
    """

    method: str
    sparsity: float
    cosine: float
    cosine_std: float
    fidelity: float
    fidelity_std: float
    retention: float
    error: float


@dataclass(frozen=True, slots=True)
class MergeStudy:
    """``active`` maps each sparsity to the share of entries the printed test ``>=`` calls active.

    ``boundary_active`` and ``boundary_cosine`` are RAM at exactly a tenth of non-zero entries, not one entry short.
    """

    seed: int
    trials: int
    entries: int
    scores: tuple[Score, ...]
    active: tuple[tuple[float, float], ...]
    boundary_active: float
    boundary_cosine: float

    def score(self, method: str, sparsity: float) -> Score:
        return next(s for s in self.scores if s.method == method and s.sparsity == sparsity)

    def active_at(self, sparsity: float) -> float:
        return dict(self.active)[sparsity]

    @property
    def levels(self) -> tuple[float, ...]:
        return tuple(level for level, _ in self.active)


def run(seed: int = 0, trials: int = TRIALS, entries: int = ENTRIES) -> MergeStudy:
    """Score every merger at every sparsity of Figure 3, which holds the three of Table 2."""
    scores: list[Score] = []
    active: list[tuple[float, float]] = []
    for index, sparsity in enumerate(SWEEP):
        draws = [_draw(seed, index, trial, entries, active_entries(entries, sparsity)) for trial in range(trials)]
        active.append((sparsity, float(np.mean([active_masks(tau).mean() for tau in draws]))))
        for number, (name, merge) in enumerate(MERGERS.items()):
            generators = [rng(seed, STUDY, index, trial, 1 + number) for trial in range(trials)]
            results = [quality(merge(tau, g), tau) for tau, g in zip(draws, generators, strict=True)]
            scores.append(_score(name, sparsity, np.array(results)))
    tenth = [_draw(seed, len(SWEEP), trial, entries, entries // 10) for trial in range(trials)]
    ram = MERGERS["RAM"]
    return MergeStudy(
        seed=seed,
        trials=trials,
        entries=entries,
        scores=tuple(scores),
        active=tuple(active),
        boundary_active=float(np.mean([active_masks(tau).mean() for tau in tenth])),
        boundary_cosine=float(np.mean([quality(ram(tau, rng(seed)), tau)[0] for tau in tenth])),
    )


def quality(merged: Floats, tau: Floats) -> tuple[float, float, float, float]:
    """Cosine to the oracle, mean fidelity, retention and error on own support, of ``merged`` [d] for ``tau`` [K, d]."""
    oracle = tau.sum(axis=0)
    alone = (tau != 0).sum(axis=0) == 1
    retained: list[float] = []
    error: list[float] = []
    for own in tau:
        mine = alone & (own != 0)
        a, b = merged[mine], own[mine]
        retained.append(dot(a, b) / dot(b, b))
        error.append(norm(a - b) / norm(b))
    return (
        cosine(merged, oracle),
        float(np.mean([cosine(merged, own) for own in tau])),
        float(np.mean(retained)),
        float(np.mean(error)),
    )


def _draw(seed: int, level: int, trial: int, entries: int, active: int) -> Floats:
    return task_vectors(rng(seed, STUDY, level, trial, 0), entries, active)


def _score(method: str, sparsity: float, results: Floats) -> Score:
    mean, std = results.mean(axis=0), results.std(axis=0)
    return Score(
        method=method,
        sparsity=sparsity,
        cosine=float(mean[0]),
        cosine_std=float(std[0]),
        fidelity=float(mean[1]),
        fidelity_std=float(std[1]),
        retention=float(mean[2]),
        error=float(mean[3]),
    )
