"""Table 1 and Figure 1: sparsity metrics of simulated task vectors from 1B to 405B.

The paper feeds its generator a share of zeros from the law through its two calibration points; it does not print how
long its vectors are. Entries proportional to the model, 10,000 per billion parameters up to a million, is our
reconstruction: with it the printed L0 comes out at every size, with a fixed length only at some.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlmerge.geometry.vector import VectorMetrics, measure
from rlmerge_lab.scaling import article
from rlmerge_lab.scaling.expectation import l0_of_zero_share, zero_share_of_gini
from rlmerge_lab.scaling.generator import active_entries, rng, task_vector
from rlmerge_lab.scaling.law import through

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
    fed = through(*article.CALIBRATION)
    rows: list[ScaleRow] = []
    for index, printed in enumerate(article.TABLE_1):
        billions, zeros = printed.billions, fed.at(printed.billions)
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
