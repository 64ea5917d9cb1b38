"""Synthetic task vectors as "Does Sparsity Persist?", section 2.6, describes them, and what their metrics must be.

Exactly ``(1 - s) d`` non-zero entries, log-normal(-3, 1.5) magnitudes, random signs; of each agent's active positions
20 % are common to all agents. The remaining 80 % are drawn by every agent for itself from the other positions
(``independent``, which leaves chance collisions) or from parts no other agent may touch (``disjoint``). The paper does
not say which; only ``independent`` exists below about 61 % sparsity, where Figure 3 starts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rlmerge.errors import RequestError
from rlmerge.extras import require

from . import article

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


def dot(a: Floats, b: Floats) -> float:
    """``sum a_i b_i`` of two vectors [d], without BLAS: on short ones its threads cost more than they bring, and its
    sums vary with their number."""
    return float(np.einsum("i,i->", a, b))


def norm(a: Floats) -> float:
    return math.sqrt(dot(a, a))


def cosine(a: Floats, b: Floats) -> float:
    """Cosine of two vectors [d]; NaN where one is zero."""
    norms = norm(a) * norm(b)
    return dot(a, b) / norms if norms else float("nan")


def gini_of_zero_share(zero_share: float, sigma: float = article.LOG_STD) -> float:
    """Gini of a vector of which ``zero_share`` is zero and the rest log-normal: ``1 - (1 - s)(1 - erf(sigma / 2))``.

    A log-normal's Gini is erf(sigma / 2); zeros scale its complement. It does not depend on the number of entries.
    """
    return 1.0 - (1.0 - zero_share) * (1.0 - math.erf(sigma / 2))


def zero_share_of_gini(gini: float, sigma: float = article.LOG_STD) -> float:
    """The share of zeros that gives this Gini: the inverse of :func:`gini_of_zero_share`."""
    return 1.0 - (1.0 - gini) / (1.0 - math.erf(sigma / 2))


def l0_of_zero_share(zero_share: float, entries: float, epsilon: float = 0.01, sigma: float = article.LOG_STD) -> float:
    """Expected L0 of the paper, share with ``|x| < epsilon * max|x|``, of such a vector with ``entries`` entries.

    Averages :func:`l0_at_quantile` over 1001 equal slices of the maximum's distribution.
    """
    slices = (np.arange(1001) + 0.5) / 1001
    return float(l0_at_quantile(zero_share, entries, slices, epsilon, sigma).mean())


def l0_at_quantile(
    zero_share: float, entries: Any, quantile: Any, epsilon: float = 0.01, sigma: float = article.LOG_STD
) -> Floats:
    """The paper's L0 when the largest magnitude sits at ``quantile`` of its own distribution (arrays broadcast).

    The largest of n normals is the normal quantile of U^(1/n), and the others lie below ``epsilon`` times it with
    probability Phi(z_max + ln(epsilon) / sigma). The mean of the log drops out: L0 does not see the scale.
    """
    special = require("scipy.special")
    active = np.maximum((1.0 - zero_share) * np.asarray(entries, dtype=np.float64), 1.0)
    # Through the upper tail, because U^(1/n) rounds to 1 for large n.
    largest = -special.ndtri(-np.expm1(np.log(quantile) / active))
    return zero_share + (1.0 - zero_share) * special.ndtr(largest + math.log(epsilon) / sigma)


@dataclass(frozen=True, slots=True)
class Law:
    """``s(N) = 1 - a N^-b``, the paper's equation 3; N in billions of parameters."""

    a: float
    b: float

    def __call__(self, billions: Any) -> Any:
        return 1.0 - self.a * np.asarray(billions, dtype=np.float64) ** -self.b

    def at(self, billions: float) -> float:
        return float(self(billions))

    def __str__(self) -> str:
        return f"1 − {self.a:.4f}·N^({-self.b:.4f})".replace("(-", "(−")


def r_squared(law: Law, billions: Sequence[float], sparsity: Sequence[float]) -> float:
    """``1 - SS_res / SS_tot`` on the sparsity scale; NaN when all measurements are equal."""
    s = np.asarray(sparsity, dtype=np.float64)
    residual, spread = s - law(billions), s - s.mean()
    total = float(spread @ spread)
    return 1.0 - float(residual @ residual) / total if total else float("nan")


def fit(billions: Sequence[float], sparsity: Sequence[float], std: Sequence[float] | None = None) -> Law:
    """Nonlinear least squares, weighted by ``1 / std^2`` when given. RequestError for fewer than two distinct sizes."""
    n, s = _points(billions, sparsity)
    if np.unique(n).size < 2:
        raise RequestError(
            "a law of two parameters needs measurements at two sizes or more",
            hint="Measure checkpoints of at least one more model size.",
        )
    start = fit_log(n.tolist(), np.clip(s, None, 1 - 1e-9).tolist())
    weight = 1.0 if std is None else 1.0 / np.asarray(std, dtype=np.float64)
    found = (
        require("scipy.optimize")
        .least_squares(lambda p: weight * (1.0 - p[0] * n ** -p[1] - s), (start.a, start.b), method="lm", xtol=1e-12)
        .x
    )
    return Law(float(found[0]), float(found[1]))


def fit_log(billions: Sequence[float], sparsity: Sequence[float]) -> Law:
    """Least squares of ``ln(1 - s)`` on ``ln N``: weighs relative, not absolute, errors of the active share."""
    n, s = _points(billions, sparsity)
    if np.any(s >= 1):
        raise RequestError("a sparsity of 1 has no logarithm of its active share", hint="Fit without it.")
    x, y = np.log(n), np.log1p(-s)
    centred = x - x.mean()
    slope = float((centred * y).sum() / (centred * centred).sum())
    return Law(float(np.exp(y.mean() - slope * x.mean())), -slope)


def through(first: tuple[float, float], second: tuple[float, float]) -> Law:
    """The one law through two (billions, sparsity) points."""
    (n1, s1), (n2, s2) = first, second
    b = float(np.log((1 - s1) / (1 - s2)) / np.log(n2 / n1))
    return Law((1 - s1) * n1**b, b)


CALIBRATED = through(*article.CALIBRATION)
"""The law that the paper feeds its generator."""


def _points(billions: Sequence[float], sparsity: Sequence[float]) -> tuple[Floats, Floats]:
    n, s = np.asarray(billions, dtype=np.float64), np.asarray(sparsity, dtype=np.float64)
    if np.any(n <= 0) or np.any(s > 1) or np.any(s < 0) or not np.all(np.isfinite(n)):
        raise RequestError("sizes must be positive and sparsities between 0 and 1", hint="Sizes are in billions.")
    return n, s
