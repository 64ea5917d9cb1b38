"""Synthetic task vectors as "Does Sparsity Persist?", section 2.6, describes them.

Exactly ``(1 - s) d`` non-zero entries, log-normal(-3, 1.5) magnitudes, random signs; of each agent's active positions
20 % are common to all agents. The remaining 80 % are drawn by every agent for itself from the other positions
(``independent``, which leaves chance collisions) or from parts no other agent may touch (``disjoint``). The paper does
not say which; only ``independent`` exists below about 61 % sparsity, where Figure 3 starts.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rlmerge.errors import RequestError
from rlmerge_lab.scaling import article

Floats = npt.NDArray[np.float64]
Supports = Literal["independent", "disjoint"]


def rng(seed: int, *path: int) -> np.random.Generator:
    """An independent stream for every ``path`` (study, scale, trial) of one seed: no draw shifts another."""
    return np.random.default_rng((seed, *path))


def active_entries(d: int, sparsity: float) -> int:
    """``(1 - s) d`` as Python truncates it. At s = 0.9 this is one entry short of a tenth of d, because 1 - 0.9 is a
    little less than 0.1 in binary; the 90th percentile of the paper's Table 2 hangs on that entry."""
    return int((1 - sparsity) * d)


def task_vector(generator: np.random.Generator, d: int, active: int) -> Floats:
    """One task vector [d] with exactly ``active`` non-zero entries."""
    tau = np.zeros(d)
    tau[generator.permutation(d)[:active]] = _values(generator, active)
    return tau


def task_vectors(
    generator: np.random.Generator,
    d: int,
    active: int,
    agents: int = article.AGENTS,
    supports: Supports = "independent",
) -> Floats:
    """Task vectors [agents, d] with ``active`` non-zero entries each, 20 % of them at positions common to all."""
    positions: npt.NDArray[Any] = generator.permutation(d)
    common = int(article.SHARED * active)
    shared, rest = positions[:common], positions[common:]
    own = active - common
    if own * (agents if supports == "disjoint" else 1) > rest.size:
        raise RequestError(
            f"{agents} {supports} supports of {active} entries do not fit into {d} positions",
            hint="Raise the sparsity or draw independent supports.",
        )
    tau = np.zeros((agents, d))
    for k in range(agents):
        unique = rest[k * own : (k + 1) * own] if supports == "disjoint" else generator.permutation(rest)[:own]
        tau[k, np.concatenate([shared, unique])] = _values(generator, active)
    return tau


def _values(generator: np.random.Generator, n: int) -> Floats:
    magnitude = np.exp(generator.normal(article.LOG_MEAN, article.LOG_STD, n))
    return magnitude * generator.choice((-1.0, 1.0), n)
