"""The plan of trials: every method gets the same number of them, over the same range of effective scales.

The first trial is the default setting, so that tuning never chooses worse on dev. Half of the others look wide, over
the whole range of scale and main parameter; the rest look close around the best so far. Both follow a Halton sequence,
scale by base 2 and parameter by base 3. A scale is a norm of the merged change in units of the experts' summed changes,
‖δ*‖ / ‖Σ τ_k‖, so that no method has a better range than another; for task arithmetic it is λ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

LOW, HIGH = 0.0625, 4.0
"""Effective scales that are looked at, evenly in the logarithm: the average of K orthogonal experts has 1/K.

Experts that went far from the base merge best at a tenth of their sum, those that hardly left it at more than all."""

WINDOW = 0.25
"""Share of each range that is looked at closely."""


@dataclass(frozen=True, slots=True)
class Spot:
    """A place in the square that tuning searches: positions from 0 to 1 of scale and main parameter in their ranges."""

    scale: float
    knob: float

    @property
    def size(self) -> float:
        """The effective scale that is meant."""
        return LOW * (HIGH / LOW) ** self.scale

    @classmethod
    def at(cls, size: float, knob: float) -> Spot:
        """The place of an effective scale above 0, which may lie outside the range."""
        return cls(math.log(size / LOW) / math.log(HIGH / LOW), knob)


def shares(trials: int) -> tuple[int, int]:
    """How many of ``trials`` look wide and how many close; the one that is left is the default setting."""
    wide = trials // 2
    return wide, trials - 1 - wide


def wide(count: int) -> list[Spot]:
    """Places spread over the whole square."""
    return [Spot(radical_inverse(index, 2), radical_inverse(index, 3)) for index in range(1, count + 1)]


def close(centre: Spot, count: int) -> list[Spot]:
    """Places spread over a window around ``centre``; parameters keep to their range, scales need not."""
    # The sequence starts with the centre's own scale, which is known: it is left out.
    return [
        Spot(
            centre.scale + WINDOW * (radical_inverse(index, 2) - 0.5),
            min(1.0, max(0.0, centre.knob + WINDOW * (radical_inverse(index, 3) - 0.5))),
        )
        for index in range(2, count + 2)
    ]


def radical_inverse(index: int, base: int) -> float:
    """The digits of ``index`` in ``base``, mirrored behind the point (van der Corput): 1, 2, 3 → 1/2, 1/4, 3/4."""
    numerator, denominator = 0, 1
    while index:
        index, digit = divmod(index, base)
        numerator, denominator = numerator * base + digit, denominator * base
    return numerator / denominator
