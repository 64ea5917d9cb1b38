"""What was seen of K task vectors, in a form that adds up: over tiles, tensors, threads or machines, in any order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np
import numpy.typing as npt

from rlmerge.frozen import frozen

from .magnitudes import Magnitudes

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@frozen(eq=False)
class Observation:
    """Counts and float64 sums over the coordinates seen so far; ``+`` adds those of other coordinates.

    Per expert [K]: ``entries``; ``nonfinite`` coordinates, where it or the base is NaN or infinite (they count as
    unchanged everywhere below) and ``base_nonfinite`` of them in the base; ``active`` |τ| > 1e-5 and ``active_alone``
    where no other expert is; ``near``: |τ| within 1e-3 of the larger weight; ``base_square`` Σθ₀², ``total`` Στ,
    ``square`` Στ², ``cube`` Στ³. ``shared_by`` [K, K]: entry (k, j-1) counts the coordinates that expert k and j-1
    others changed.

    Per pair [K, K], filled for a < b only, C = τ_a τ_b: ``joint`` both changed, ``joint_active`` both active,
    ``opposed`` C < 0, ``product_size`` Σ|C|, ``opposed_size`` Σ|C⁻|, ``product_square`` ΣC², ``opposed_square`` ΣC⁻².
    """

    entries: Counts
    nonfinite: Counts
    base_nonfinite: Counts
    active: Counts
    active_alone: Counts
    near: Counts
    shared_by: Counts
    base_square: Floats
    total: Floats
    square: Floats
    cube: Floats
    pair_entries: Counts
    joint: Counts
    joint_active: Counts
    opposed: Counts
    product_size: Floats
    opposed_size: Floats
    product_square: Floats
    opposed_square: Floats
    magnitudes: tuple[Magnitudes, ...]

    @classmethod
    def zero(cls, experts: int) -> Observation:
        """Nothing seen yet, of ``experts`` experts."""
        arrays: dict[str, np.ndarray] = {}
        for name, dtype, axes in _LAYOUT:
            arrays[name] = np.zeros((experts,) * axes, dtype)
        return cls(**arrays, magnitudes=())

    def __add__(self, other: Observation) -> Observation:
        summed = {name: getattr(self, name) + getattr(other, name) for name, _, _ in _LAYOUT}
        if not self.magnitudes or not other.magnitudes:
            return Observation(**summed, magnitudes=self.magnitudes or other.magnitudes)
        pairs = zip(self.magnitudes, other.magnitudes, strict=True)
        return Observation(**summed, magnitudes=tuple(mine + more for mine, more in pairs))

    def with_magnitudes(self, magnitudes: Sequence[Magnitudes]) -> Observation:
        """The same with ``magnitudes`` [K]; empty to drop them."""
        return replace(self, magnitudes=tuple(magnitudes))

    def placed(self, positions: Sequence[int], experts: int) -> Observation:
        """This observation of a few experts as one of ``experts`` experts, at ``positions``, the others unseen."""
        wide = Observation.zero(experts)
        where = np.array(positions)
        for name, _, axes in _LAYOUT:
            small: np.ndarray = getattr(self, name)
            if name == "shared_by":
                wide.shared_by[where, : len(where)] = small
            elif axes == 1:
                getattr(wide, name)[where] = small
            else:
                getattr(wide, name)[np.ix_(where, where)] = small
        given = dict(zip(positions, self.magnitudes, strict=False))
        return wide.with_magnitudes([given.get(k, Magnitudes.empty()) for k in range(experts)] if given else ())

    @property
    def experts(self) -> int:
        return len(self.entries)

    @property
    def finite(self) -> Counts:
        """Coordinates the figures of each expert are about [K]."""
        return self.entries - self.nonfinite

    @property
    def changed(self) -> Counts:
        """Coordinates whose stored value differs from the base's, +0 and -0 being equal [K]."""
        return self.shared_by.sum(axis=1)

    @property
    def exactly(self) -> Counts:
        """Coordinates that exactly 1 … K experts changed [K]."""
        return self.shared_by.sum(axis=0) // np.arange(1, self.experts + 1)

    @property
    def gram(self) -> Floats:
        """⟨τ_a, τ_b⟩ [K, K]."""
        upper = self.product_size - 2 * self.opposed_size
        return upper + upper.T + np.diag(self.square)


_PAIRS = {"pair_entries", "joint", "joint_active", "opposed", "product_size", "opposed_size", "product_square"}
_LAYOUT = tuple(
    (
        f.name,
        np.int64 if f.type == "Counts" else np.float64,
        2 if f.name in {*_PAIRS, "opposed_square", "shared_by"} else 1,
    )
    for f in fields(Observation)
    if f.name != "magnitudes"
)
