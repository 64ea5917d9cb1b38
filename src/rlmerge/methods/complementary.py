"""Sparse complementary fusion of one tile: how much each change matters, and which changes are taken.

Used by the formula of SCF-RKL and by the statistics that find its thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlmerge.frozen import frozen

ROW_VALUES = {"row": 1, "element": 2, "fisher": 0}
"""How many numbers a row each importance needs."""


@frozen
class Fusion:
    """``base`` [n] and the experts' weights ``theta`` [K, n], the choices, and what is known of the rows.

    ``rows`` holds for each expert its row's divergence, or with importance ``element`` log Σ e^W and what the change
    adds to it; ``sensitivity`` is [K, n] or None, which counts as 1.
    """

    xp: Any
    base: Any
    theta: Any
    importance: str
    direction: str
    order: str
    rows: Sequence[Any]
    sensitivity: Any = None

    def importance_of(self, k: int, reference: Any) -> Any:
        """I of expert ``k`` beside ``reference`` [n]: |Δ|·KL(row), |q log(q/p)| (0 where Δ = 0), or ½FΔ²."""
        xp, change = self.xp, self.theta[k] - reference
        if self.importance == "row":
            return xp.abs(change) * self.rows[k][0]
        if self.importance == "fisher":
            loss = 0.5 * change if self.sensitivity is None else 0.5 * self.sensitivity[k] * change
            return xp.abs(loss) * xp.abs(change)
        total, shift = self.rows[k]
        share = np.exp((reference if self.direction == "reverse" else self.theta[k]) - total)
        return xp.where(change == 0, 0.0, share * xp.abs(shift - change))

    def largest(self) -> tuple[Any, list[Any]]:
        """The largest importance beside the base, and masks [K] of whose it is; of equal ones the first expert's."""
        best = self.importance_of(0, self.base)
        whose = [best == best]
        for k in range(1, len(self.theta)):
            other = self.importance_of(k, self.base)
            better = other > best
            whose = [*(mine & ~better for mine in whose), better]
            best = self.xp.where(better, other, best)
        return best, whose

    def fuse(self, thresholds: Sequence[Any]) -> tuple[Any, list[Any]]:
        """The fused weights [n], and masks of what comes from each expert.

        ``sequential`` fuses one expert after the other into what is there by then, as many as there are thresholds.
        ``argmax`` takes the expert of the largest importance per coordinate and has one threshold.
        """
        fused, taken = self.base, list[Any]()
        if self.order == "argmax":
            best, whose = self.largest()
            taken = [(best >= thresholds[0]) & (best > 0) & mine for mine in whose]
            for k, mine in enumerate(taken):
                fused = self.xp.where(mine, self.theta[k], fused)
            return fused, taken
        for k, least in enumerate(thresholds):
            found = self.importance_of(k, fused)
            chosen = (found >= least) & (found > 0)
            fused = self.xp.where(chosen, self.theta[k], fused)
            taken = [*(mine & ~chosen for mine in taken), chosen]
        return fused, taken
