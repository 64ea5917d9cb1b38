"""What methods with measured inputs share: whose sensitivity is given, and averages weighted by it."""

from __future__ import annotations

from typing import Any

from .method import Parameter

MEASURED_ON = Parameter(
    "measured_on",
    "expert",
    "The model each sensitivity was measured on: the expert itself, or the base.",
    choices=("expert", "base"),
)


def shares(xp: Any, measured: Any, mask: Any) -> Any:
    """F_k / Σ F over the experts of ``mask`` [K, n], 0 for the others; equal shares where all of them have F = 0.

    F is divided by its largest before it is summed, so that neither tiny nor huge values leave the range of float32.
    """
    amount = xp.where(mask, measured, 0.0)
    largest = xp.max(amount)
    scaled = xp.where(largest > 0, amount / xp.where(largest > 0, largest, 1.0), xp.where(mask, 1.0, 0.0))
    total = xp.sum(scaled)
    return scaled / xp.where(total == 0, 1.0, total)
