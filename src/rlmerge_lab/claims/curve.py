"""Gain against the scale of the merged update: what task arithmetic gives at the norm of another method's merge."""

from __future__ import annotations

from itertools import pairwise
from statistics import stdev

from rlmerge_lab.claims.cells import Cells, Study, finite


def at_equal_scale(study: Study, arm: str) -> Cells:
    """Gain kept by each method's default minus that of task arithmetic at the same ‖δ*‖, by method.

    Task arithmetic's curve is the study's sweep of its coefficient, linear between its points; merges whose norm lies
    outside the sweep have no cell.
    """
    gains, norms = study.by_method(arm, "default"), study.by_method(arm, "default", "norm")
    curves = {seed: curve(study, arm, seed) for seed in {seed for seed, _ in gains}}
    found: Cells = {}
    for (seed, method), gain in gains.items():
        norm = norms.get((seed, method))
        reference = None if norm is None else interpolate(curves[seed], norm)
        if reference is not None:
            found[seed, method] = gain - reference
    return found


def curve(study: Study, arm: str, seed: int) -> list[tuple[float, float]]:
    """(‖δ*‖/‖θ₀‖, gain kept) of the sweep of one arm and seed, by norm; from the base itself, which keeps nothing."""
    points = [(0.0, 0.0)]
    for row in study.rows.get("sweep") or ():
        norm, gain = finite(row.get("norm")), finite(row.get("gain_kept"))
        if row["arm"] == arm and row["seed"] == seed and norm is not None and gain is not None:
            points.append((norm, gain))
    return sorted(points)


def interpolate(points: list[tuple[float, float]], at: float) -> float | None:
    """The value at ``at`` on the straight lines between ``points``; None outside them."""
    for (left, low), (right, high) in pairwise(points):
        if left <= at <= right:
            return high if right == left else low + (high - low) * (at - left) / (right - left)
    return None


def spreads(study: Study, arm: str, rules: tuple[str, str]) -> tuple[dict[int, float], dict[int, float]]:
    """Standard deviation over methods of the gain kept under two rules, by seed, over the methods that have both.

    A seed with fewer than three such methods is absent.
    """
    first, second = (study.by_method(arm, rule) for rule in rules)
    common: dict[int, list[tuple[int, str]]] = {}
    for cell in sorted(first.keys() & second.keys()):
        common.setdefault(cell[0], []).append(cell)
    kept = {seed: cells for seed, cells in common.items() if len(cells) >= 3}
    one, two = (
        {seed: stdev(gains[cell] for cell in cells) for seed, cells in kept.items()} for gains in (first, second)
    )
    return one, two
