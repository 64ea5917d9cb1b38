"""The law s(N) = 1 - a N^-b ("Does Sparsity Persist?", eq. 3) and ways to fit it; N in billions of parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rlmerge.errors import RequestError
from rlmerge_lab.scaling.extra import need

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Law:
    """``s(N) = 1 - a N^-b``."""

    a: float
    b: float

    def __call__(self, billions: Any) -> Any:
        return 1.0 - self.a * np.asarray(billions, dtype=np.float64) ** -self.b

    def at(self, billions: float) -> float:
        return float(self(billions))

    def to_dict(self) -> dict[str, float]:
        return asdict(self)

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
        need("scipy.optimize")
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


def _points(billions: Sequence[float], sparsity: Sequence[float]) -> tuple[Floats, Floats]:
    n, s = np.asarray(billions, dtype=np.float64), np.asarray(sparsity, dtype=np.float64)
    if np.any(n <= 0) or np.any(s > 1) or np.any(s < 0) or not np.all(np.isfinite(n)):
        raise RequestError("sizes must be positive and sparsities between 0 and 1", hint="Sizes are in billions.")
    return n, s
