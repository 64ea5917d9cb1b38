"""Few coefficients by L-BFGS: the objective is smooth, and a step costs a pass over the samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from rlmerge.frozen import frozen

Slope = Callable[[np.ndarray], tuple[float, np.ndarray]]
"""Objective and gradient at coefficients [C, G]."""

_PRECISION = 1e-5
"""Relative change of the objective, and largest slope over it, below which nothing more is found."""


@frozen
class Fitted:
    """The best ``values`` [C, G] that were seen, and the objective at every evaluation in order."""

    values: np.ndarray
    objective: float
    history: tuple[float, ...]
    converged: bool


def minimise(slope: Slope, start: np.ndarray, steps: int, ridge: float = 0.0) -> Fitted:
    """Minimise ``slope`` + ridge · Σ (c − start)² from ``start`` in at most ``steps`` steps with line search.

    The curvature is learned from the slopes (L-BFGS, strong Wolfe conditions), so coefficients need no learning rate.
    The values returned are those of the lowest objective seen, which is never above that at the start.
    """
    values = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    history: list[float] = []
    best: tuple[float, np.ndarray] = (np.inf, start)
    first = slope(start)

    def evaluate() -> Any:
        nonlocal best
        point = values.detach().numpy().copy()
        objective, gradient = slope(point) if history else first
        moved = point - start
        objective += ridge * float(np.sum(moved**2))
        values.grad = torch.from_numpy(gradient + 2 * ridge * moved)
        history.append(objective)
        if objective < best[0]:
            best = objective, point
        return torch.tensor(objective, dtype=torch.float64)

    tolerance = _PRECISION * max(abs(first[0]), 1e-12)
    search = torch.optim.LBFGS(
        [values],
        max_iter=steps,
        max_eval=3 * steps,
        tolerance_grad=tolerance,
        tolerance_change=tolerance,
        history_size=20,
        line_search_fn="strong_wolfe",
    )
    search.step(evaluate)
    taken: int = search.state[values]["n_iter"]
    return Fitted(best[1], best[0], tuple(history), taken < steps and len(history) < 3 * steps)
