"""What methods with measured inputs share: whose sensitivity is given, and means weighted by it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .method import Parameter

MEASURED_ON = Parameter(
    "measured_on",
    "expert",
    "The model each sensitivity was measured on: the expert itself, or the base.",
    choices=("expert", "base"),
)


def shares(xp: Any, amount: Any, otherwise: Any) -> Any:
    """a_k / Σ a over the experts of amounts [K, n] >= 0; those of ``otherwise`` where all amounts are 0.

    Amounts are divided by the largest before they are added up, so that tiny ones do not leave the range of float32.
    """
    largest = xp.max(amount)
    scaled = xp.where(largest > 0, amount / xp.where(largest > 0, largest, 1.0), otherwise)
    total = xp.sum(scaled)
    return scaled / xp.where(total > 0, total, 1.0)


def measured_sum(xp: Any, base: Any, stack: Any, *, sensitivity: Any) -> Any:
    """Summands of each expert's total sensitivity; zeros where a tensor has none."""
    return 0.0 * stack if sensitivity is None else sensitivity


def no_sensitivity(values: Mapping[str, Any]) -> np.ndarray | None:
    """Totals of 0 without a scan where nothing is measured."""
    return np.zeros(int(values["experts"])) if values["sensitivity"] is None else None
