"""From an observation to figures: sparsity and concentration per expert, overlap and conflict per pair."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .definitions import Measure
from .magnitudes import Estimate
from .observation import Observation

Figures = dict[str, Measure]
_NAN = math.nan


def sparsity(seen: Observation, expert: int, dtype: str) -> Figures:
    """Figures of one expert's task vector; NaN is 0/0 (no entries, no change), never a flattering 0 or 1."""
    n = int(seen.finite[expert])
    square, base = float(seen.square[expert]), float(seen.base_square[expert])
    values = {
        "unchanged_bits": (_ratio(n - int(seen.changed[expert]), n), 0.0),
        "small_absolute": (_ratio(n - int(seen.active[expert]), n), 0.0),
        "small_relative": (_ratio(int(seen.near[expert]), n), 0.0),
        "norm": (math.sqrt(square), 0.0),
        "relative_norm": (math.sqrt(_ratio(square, base)) if base else _NAN, 0.0),
    }
    if seen.magnitudes and n:
        table = seen.magnitudes[expert].table
        found = {
            "l0": table.below_share_of_largest(n),
            "gini": table.gini(n),
            "top1_mass": table.top_mass(n, 1),
            "top5_mass": table.top_mass(n, 5),
        }
        values |= {key: (estimate.value, estimate.error) for key, estimate in found.items()}
        values["kurtosis"] = _kurtosis(n, float(seen.total[expert]), square, float(seen.cube[expert]), table.moment(4))
    return {key: Measure(key, value, dtype, error=error) for key, (value, error) in values.items()}


def overlap(seen: Observation, a: int, b: int, dtype: str) -> Figures:
    """Figures of the pair a < b, each beside what independent supports or random signs would give."""
    n = int(seen.pair_entries[a, b])
    joint, joint_active = int(seen.joint[a, b]), int(seen.joint_active[a, b])
    norms = float(seen.square[a]), float(seen.square[b])
    scale = math.sqrt(norms[0]) * math.sqrt(norms[1])
    dot = float(seen.gram[a, b])
    size = float(seen.product_size[a, b])
    distance = math.sqrt(max(0.0, norms[0] + norms[1] - 2 * dot))
    return {
        measure.key: measure
        for measure in (
            _jaccard("jaccard", joint, int(seen.changed[a]), int(seen.changed[b]), n, dtype),
            _jaccard("jaccard_active", joint_active, int(seen.active[a]), int(seen.active[b]), n, dtype),
            Measure(
                "cosine",
                _ratio(dot, scale),
                dtype,
                null=0.0,
                null_sd=_ratio(math.sqrt(float(seen.product_square[a, b])), scale),
            ),
            Measure("sign_conflict", _ratio(int(seen.opposed[a, b]), joint), dtype, 0.5, _coin(joint)),
            Measure("conflict_norm", math.sqrt(float(seen.opposed_square[a, b])), dtype),
            Measure(
                "conflict_share",
                _ratio(float(seen.opposed_size[a, b]), size),
                dtype,
                null=0.5,
                null_sd=_ratio(math.sqrt(float(seen.product_square[a, b])) / 2, size),
            ),
            Measure("distance", _ratio(distance, math.sqrt(scale)), dtype, null=math.sqrt(2)),
        )
    }


def chance_jaccard(p: float, q: float) -> float:
    """Jaccard index expected of independent sets that hold shares ``p`` and ``q`` of the coordinates."""
    return _ratio(p * q, p + q - p * q)


def shared_exactly(seen: Observation, expert: int) -> tuple[float, ...]:
    """Share of the expert's changed coordinates that exactly 1 … K experts changed (1: it alone)."""
    changed = int(seen.changed[expert])
    return tuple(_ratio(int(count), changed) for count in seen.shared_by[expert])


def chance_shared_exactly(changed: Sequence[float], expert: int) -> tuple[float, ...]:
    """The same for independent supports, where ``changed`` [K] are the shares each expert changed."""
    others = [p for k, p in enumerate(changed) if k != expert]
    distribution = [1.0]
    for p in others:
        grown = [0.0] * (len(distribution) + 1)
        for count, weight in enumerate(distribution):
            grown[count] += weight * (1 - p)
            grown[count + 1] += weight * p
        distribution = grown
    return tuple(distribution)


def _jaccard(key: str, joint: int, a: int, b: int, n: int, dtype: str) -> Measure:
    chance = chance_jaccard(a / n, b / n) if n else _NAN
    return Measure(key, _ratio(joint, a + b - joint), dtype, null=chance)


def _kurtosis(n: int, total: float, square: float, cube: float, fourth: Estimate) -> tuple[float, float]:
    mean = total / n
    second = square / n - mean * mean
    # All values equal up to the rounding of the sums: no spread, no kurtosis.
    if second <= 1e-12 * square / n:
        return _NAN, 0.0
    central = fourth.value / n - 4 * mean * cube / n + 6 * mean**2 * square / n - 3 * mean**4
    return central / second**2 - 3, fourth.error / n / second**2


def _coin(tosses: int) -> float:
    return 0.5 / math.sqrt(tosses) if tosses else _NAN


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else _NAN
