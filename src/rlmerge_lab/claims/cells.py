"""A study's rows as cells: one figure for each seed and unit (task, pair, method), so that arms pair cell by cell."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import pairwise
from statistics import stdev
from typing import Any

from rlmerge import methods

Row = Mapping[str, Any]
Cells = dict[tuple[int, str], float]
"""(seed, unit) to value; what a study lacks, or could not compute, is absent."""

ALL = "all"
AVERAGING = "linear"
TUNABLE = "task_arithmetic"
EXACT = "float32"
"""The rule of a merge ``of`` another rule, scored again with weights that no rounding touched."""


class Study:
    """Reads a study's plain dict (schema ``rlmerge.lab.study/1``); every reader returns only finite cells."""

    def __init__(self, rows: Mapping[str, Any]) -> None:
        self.rows = rows
        self._merges: dict[tuple[str, str, str], list[Row]] = {}
        for row in self._list("merges"):
            self._merges.setdefault((row["arm"], row["method"], row["rule"]), []).append(row)

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods that were merged with, in the study's order, then any other that its rows name."""
        named = (row["method"] for row in self._list("merges"))
        return tuple(dict.fromkeys([*self.rows.get("methods", ()), *named]))

    @property
    def arms(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*self.rows.get("arms", ()), *(row["arm"] for row in self._list("experts"))]))

    def expert(self, arm: str, field: str) -> Cells:
        """A figure of the experts, by task."""
        return _cells((row["seed"], row["task"], row.get(field)) for row in self._list("experts") if row["arm"] == arm)

    def own(self, arm: str) -> Cells:
        """Exact pass@1 of each expert on its own task."""
        rows = (row for row in self._list("experts") if row["arm"] == arm)
        return _cells((row["seed"], row["task"], _scores(row).get(row["task"])) for row in rows)

    def base(self) -> Cells:
        """Exact pass@1 of each seed's base, by task."""
        return _tests(self._list("bases"))

    def others(self, arm: str) -> Cells:
        """What training on one task did to the others: pass@1 of expert minus base, by (expert's task, other task)."""
        base = self.base()
        return {
            (seed, f"{row['task']} on {task}"): score - base[seed, task]
            for row in self._list("experts")
            if row["arm"] == arm
            for (seed, task), score in _tests([row]).items()
            if task != row["task"] and (seed, task) in base
        }

    def pair(self, arm: str, field: str) -> Cells:
        """A figure of two task vectors, by pair of tasks."""
        rows = (row for row in self._list("geometry") if row["arm"] == arm)
        return _cells((row["seed"], "+".join(sorted((row["a"], row["b"]))), row.get(field)) for row in rows)

    def merge(self, arm: str, method: str, rule: str, field: str = "gain_kept", *, pairs: bool = False) -> Cells:
        """A figure of the merges of one method: of all experts together, or of every pair, by set."""
        rows = (row for row in self._merges.get((arm, method, rule), ()) if (row["set"] == ALL) != pairs)
        return _cells((row["seed"], row["set"], self._figure(row, field)) for row in rows)

    def exact_output(self, arm: str, method: str, rule: str, field: str = "gain_kept") -> Cells:
        """The same, stored in float32 so that no change is rounded away."""
        found = self._merges.get((arm, method, EXACT), ())
        rows = (row for row in found if row["set"] == ALL and row.get("of") == rule)
        return _cells((row["seed"], row["set"], self._figure(row, field)) for row in rows)

    def by_method(self, arm: str, rule: str, field: str = "gain_kept") -> Cells:
        """A figure of the merges of all experts, by method."""
        return {
            (seed, method): value
            for method in self.methods
            for (seed, _), value in self.merge(arm, method, rule, field).items()
        }

    def health(self, arm: str, kind: str, field: str) -> Cells:
        """A figure of generated text, by model of a kind: ``base``, ``expert`` or ``merge``."""
        rows = (row for row in self._list("health") if row["arm"] == arm)
        found = ((row["seed"], *row["model"].partition(":")[::2], row.get(field)) for row in rows)
        return _cells((seed, name, value) for seed, head, name, value in found if head == kind)

    @property
    def vocabulary(self) -> int | None:
        """Tokens that a model of the study knows, where the study says so."""
        return self.rows.get("vocabulary")

    def looks_at(self, method: str) -> str:
        """What a method of the study decides by, as ``rlmerge methods`` groups them; empty for an unknown one."""
        name = method.partition(":")[0]
        return methods.get(name).looks_at if name in methods.names() else ""

    def looking_at(self, *kinds: str) -> tuple[str, ...]:
        """The study's methods that decide by one of ``kinds``."""
        return tuple(name for name in self.methods if self.looks_at(name) in kinds)

    def part(self, arm: str, method: str, part: str, layer: int | None = None, field: str = "gain_kept") -> Cells:
        """A figure of merges of all experts of which one ``part`` is the method's and the rest task arithmetic's."""
        rows = (
            row for row in self._list("ablation") if (row["arm"], row["method"], row["part"]) == (arm, method, part)
        )
        return _cells((row["seed"], ALL, row.get(field)) for row in rows if row.get("layer") == layer)

    def layers(self, arm: str, method: str) -> tuple[int, ...]:
        """Numbers of the layers that were the method's alone in some merge."""
        rows = (
            row for row in self._list("ablation") if (row["arm"], row["method"], row["part"]) == (arm, method, "layer")
        )
        return tuple(sorted({row["layer"] for row in rows}))

    def student(self, arm: str) -> dict[int, list[tuple[float, float]]]:
        """(generated tokens, mean pass@1 over tasks on dev) of each seed's distilled student, in order."""
        found: dict[int, list[tuple[float, float]]] = {}
        for row in self._list("students"):
            looks = ((finite(tokens), [finite(one) for one in dev.values()]) for tokens, dev in row.get("curve") or ())
            known = [(t, [s for s in scores if s is not None], len(scores)) for t, scores in looks if t is not None]
            points = [
                (tokens, sum(scores) / count) for tokens, scores, count in known if scores and len(scores) == count
            ]
            if row["arm"] == arm and points:
                found[row["seed"]] = sorted(points)
        return found

    def student_score(self, arm: str) -> Cells:
        """Mean pass@1 over tasks on test of each seed's distilled student."""
        rows = [row for row in self._list("students") if row["arm"] == arm]
        return {(seed, ALL): value for seed, value in seed_means(_tests(rows)).items()}

    def student_off_task(self, arm: str) -> Cells:
        """Mean change from the base on held tasks of each seed's distilled student."""
        return _cells((row["seed"], ALL, row.get("off_task")) for row in self._list("students") if row["arm"] == arm)

    def pictures(self, arm: str) -> list[Row]:
        """The landscape pictures of an arm."""
        return [row for row in self._list("landscape") if row["arm"] == arm]

    def _figure(self, row: Row, field: str) -> float | None:
        """A field of a merge; ``score`` is its mean pass@1 over the tasks of its set, with no denominator."""
        if field != "score":
            return finite(row.get(field))
        every = {expert["task"] for expert in self._list("experts") if expert["arm"] == row["arm"]}
        scores = [finite(_scores(row).get(task)) for task in (every if row["set"] == ALL else row["set"].split("+"))]
        known = [score for score in scores if score is not None]
        return sum(known) / len(known) if known and len(known) == len(scores) else None

    def _list(self, key: str) -> Iterable[Row]:
        return self.rows.get(key) or ()


def finite(value: object) -> float | None:
    """The number, or None for null, NaN and infinity."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def seed_means(cells: Cells) -> dict[int, float]:
    """The mean over units for each seed."""
    found: dict[int, list[float]] = {}
    for (seed, _), value in cells.items():
        found.setdefault(seed, []).append(value)
    return {seed: sum(values) / len(values) for seed, values in sorted(found.items())}


def only(cells: Cells, unit: str) -> Cells:
    """The cells of one unit, under an empty name, so that they pair with those of another."""
    return {(seed, ""): value for (seed, name), value in cells.items() if name == unit}


def _cells(found: Iterable[tuple[int, str, object]]) -> Cells:
    return {(seed, unit): number for seed, unit, value in found if (number := finite(value)) is not None}


def _tests(rows: Iterable[Row]) -> Cells:
    """Scores on test, by task."""
    return _cells((row["seed"], task, score) for row in rows for task, score in _scores(row).items())


def _scores(row: Row) -> Mapping[str, Any]:
    return row.get("test") or {}


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
