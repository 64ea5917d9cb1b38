"""What a merge leaves of each expert's changes once it is rounded: survival, realised coefficient, retention.

An expert's own coordinates U_k are those it alone changed. All figures are about the stored output, not about the
formula's exact value: a one-step change of a bfloat16 weight, averaged over three experts, is rounded away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from rlmerge.frozen import frozen


@frozen(slots=True)
class ExpertOutcome:
    """One expert's changes in a merge. Shares and coefficients are NaN where there is nothing to divide by.

    ``survived``: share of its changed coordinates whose output differs from the base. ``erased``: share of them that
    the formula moved and rounding took back. ``unique``: share of them that
    are its own. ``requested`` and ``realised``: Σ(θ* - θ₀)τ / Στ² over its own coordinates before and after rounding;
    ``realised`` is the retention ⟨δ*, τ_k⟩/‖τ_k‖² on U_k. ``projection``: the same over all coordinates.
    ``relative_error``: ‖(δ* - τ_k)|U_k‖ / ‖τ_k|U_k‖, where measured.
    """

    expert: str
    changed: int
    survived: float
    erased: float
    unique: float
    requested: float
    realised: float
    projection: float
    relative_error: float = math.nan

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@frozen(eq=False)
class Survival:
    """Counts and sums of one merge over K experts; ``+`` adds those of other coordinates.

    ``union`` and ``union_survived`` count coordinates that any expert changed. Per expert [K]: ``changed``,
    ``survived``, ``unique`` and ``erased`` coordinates; over its own ones ``asked`` Σ(merged - θ₀)τ, ``moved``
    Σ(out - θ₀)τ, ``own_square`` Στ², ``own_error`` Σ(out - θ₀ - τ)²; over all of them ``moved_all`` and ``square``.
    ``erased``, ``asked`` and ``own_error`` are NaN where they were not measured.
    """

    union: int
    union_survived: int
    changed: npt.NDArray[np.int64]
    survived: npt.NDArray[np.int64]
    unique: npt.NDArray[np.int64]
    erased: npt.NDArray[np.float64]
    asked: npt.NDArray[np.float64]
    moved: npt.NDArray[np.float64]
    own_square: npt.NDArray[np.float64]
    own_error: npt.NDArray[np.float64]
    moved_all: npt.NDArray[np.float64]
    square: npt.NDArray[np.float64]

    @classmethod
    def of(cls, counts: np.ndarray, sums: np.ndarray) -> Survival:
        """From the counts [2 + 4K] and sums [5K] that a merging kernel keeps, in its order."""
        changed, survived, unique, erased = counts[2:].reshape(-1, 4).T
        asked, moved, own_square, moved_all, square = sums.reshape(-1, 5).T
        unknown = np.full(len(asked), math.nan)
        kept = (asked, moved, own_square, unknown, moved_all, square)
        return cls(int(counts[0]), int(counts[1]), changed, survived, unique, erased.astype(np.float64), *kept)

    def __add__(self, other: Survival) -> Survival:
        mine = (getattr(self, name) for name in self.__dataclass_fields__)
        theirs = (getattr(other, name) for name in other.__dataclass_fields__)
        return Survival(*(a + b for a, b in zip(mine, theirs, strict=True)))

    @property
    def share(self) -> float:
        """Share of the coordinates any expert changed whose output differs from the base."""
        return self.union_survived / self.union if self.union else math.nan

    def outcomes(self, names: Sequence[str]) -> tuple[ExpertOutcome, ...]:
        """One outcome per expert."""
        return tuple(self._outcome(k, name) for k, name in enumerate(names))

    def _outcome(self, k: int, name: str) -> ExpertOutcome:
        changed, own = int(self.changed[k]), float(self.own_square[k])
        return ExpertOutcome(
            name,
            changed,
            _ratio(int(self.survived[k]), changed),
            _ratio(float(self.erased[k]), changed),
            _ratio(int(self.unique[k]), changed),
            _ratio(float(self.asked[k]), own),
            _ratio(float(self.moved[k]), own),
            _ratio(float(self.moved_all[k]), float(self.square[k])),
            math.sqrt(_ratio(float(self.own_error[k]), own)) if own else math.nan,
        )


def compare(xp: Any, base: Any, weights: Any, *, reference: Any) -> Any:
    """Counts and sums of an existing merge: ``weights`` [K + 1, n] are the experts and, last, the merged model.

    ``reference`` [1, n] is the base rounded to the merged model's type, to which what did not survive is equal.
    """
    *experts, merged = weights
    tau = [weight - base for weight in experts]
    moved = merged - base
    changed = [delta != 0.0 for delta in tau]
    times = xp.where(changed[0], 1.0, 0.0)
    for mask in changed[1:]:
        times = times + xp.where(mask, 1.0, 0.0)
    survived = merged != reference[0]
    counts = [times > 0.0, (times > 0.0) & survived]
    sums: list[Any] = []
    for delta, mask in zip(tau, changed, strict=True):
        own = mask & (times == 1.0)
        error = moved - delta
        counts += [mask, mask & survived, own]
        product, square = moved * delta, delta * delta
        sums += [xp.where(own, x, 0.0) for x in (product, square, error * error)]
        sums += [product, square]
    return {"counts": counts, "sums": sums}


def compared(counts: np.ndarray, sums: np.ndarray) -> Survival:
    """What ``compare`` counted and summed; what was asked for before rounding is unknown."""
    moved, own_square, own_error, moved_all, square = sums.reshape(-1, 5).T
    unknown = np.full(len(moved), math.nan)
    changed, survived, unique = counts[2:].reshape(-1, 3).T
    kept = (unknown, moved, own_square, own_error, moved_all, square)
    return Survival(int(counts[0]), int(counts[1]), changed, survived, unique, unknown, *kept)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
