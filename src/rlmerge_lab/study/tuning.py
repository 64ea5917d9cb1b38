"""One method on one set of experts: tuned on dev, scored on test as it comes, tuned, and at the common norm.

Every method gets the same number of trials, over the same range of effective scales. The first trial is the default
setting, so that tuning never chooses worse on dev. Half of the others look wide, over the whole range of scale and main
parameter; the rest look close around the best so far. Both follow a Halton sequence, scale by base 2 and parameter by
base 3. A scale is a norm of the merged change in units of the experts' summed changes, ‖δ*‖ / ‖Σ τ_k‖, so that no
method has a better range than another; for task arithmetic it is λ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import xxhash

from .candidates import REFERENCE, Candidate
from .cases import Case, decided_by
from .family import Family, Merge, Vector
from .off_task import off_task
from .scoring import Pass, goal
from .sensitivity import SensitivityJob

LOW, HIGH = 0.0625, 4.0
"""Effective scales that are looked at, evenly in the logarithm: the average of K orthogonal experts has 1/K.

Experts that went far from the base merge best at a tenth of their sum, those that hardly left it at more than all."""

WINDOW = 0.25
"""Share of each range that is looked at closely."""


@dataclass(frozen=True, slots=True)
class SearchPoint:
    """A place in the square that tuning searches: positions from 0 to 1 of scale and main parameter in their ranges."""

    scale: float
    knob: float

    @property
    def size(self) -> float:
        """The effective scale that is meant."""
        return LOW * (HIGH / LOW) ** self.scale

    @classmethod
    def at(cls, size: float, knob: float) -> SearchPoint:
        """The place of an effective scale above 0, which may lie outside the range."""
        return cls(math.log(size / LOW) / math.log(HIGH / LOW), knob)


def shares(trials: int) -> tuple[int, int]:
    """How many of ``trials`` look wide and how many close; the one that is left is the default setting."""
    wide = trials // 2
    return wide, trials - 1 - wide


def wide(count: int) -> list[SearchPoint]:
    """Places spread over the whole square."""
    return [SearchPoint(radical_inverse(index, 2), radical_inverse(index, 3)) for index in range(1, count + 1)]


def close(centre: SearchPoint, count: int) -> list[SearchPoint]:
    """Places spread over a window around ``centre``; parameters keep to their range, scales need not."""
    # The sequence starts with the centre's own scale, which is known: it is left out.
    return [
        SearchPoint(
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


EXACT = {"linear": "default", REFERENCE: "tuned"}
"""Methods scored once more with float32 weights, and by which rule: what rounding to the base's type costs.

Averaging stands for itself as it comes: with a scale of its own it is task arithmetic."""


def merge_of(
    case: Case, candidate: Candidate, parameters: Mapping[str, Any], measured: Sequence[SensitivityJob] = ()
) -> Merge:
    """The candidate's merge of a set with ``parameters`` as a result has them, its scale among them."""
    rest, factor = candidate.split(parameters)
    if candidate.measured:
        inputs = {candidate.measured: [job.directory for job in measured]}
        return case.family.merge_files(candidate.method, rest, case.seed, inputs).scaled(factor)
    return case.family.merge(candidate.method, rest, case.seed).scaled(factor)


@dataclass(frozen=True, slots=True)
class _Trial:
    """A trial carried out: where, the change before rounding, the method's parameters, and what dev says."""

    point: SearchPoint
    merge: Merge
    parameters: Mapping[str, Any]
    dev: float


@dataclass(frozen=True, slots=True)
class MergeJob:
    """Tunes ``candidate`` with ``trials`` trials on dev and scores it on test.

    ``norm`` is the common ‖δ*‖ of the set (None: the method sets it itself); ``measured`` are the finished measurements
    of the experts, where the method needs them.
    """

    case: Case
    candidate: Candidate
    trials: int
    norm: float | None = None
    measured: tuple[SensitivityJob, ...] = ()

    @property
    def label(self) -> str:
        return f"merge.{self.case.name}.{self.candidate.label}"

    @property
    def identity(self) -> Mapping[str, Any]:
        return decided_by(
            "merge",
            case=self.case.identity,
            candidate={"label": self.candidate.label, **self.candidate.to_dict()},
            trials=self.trials,
            plan=(LOW, HIGH, WINDOW),
            norm=self.norm,
            measured=[job.digest for job in self.measured],
        )

    @property
    def cost(self) -> int:
        return self.case.items(self.trials, 2 if self.norm is None else 3)

    def run(self) -> dict[str, Any]:
        """{"norm": ‖δ*‖ as tuned, "rows": one per rule, "trials": [parameters, norm, dev] of each}."""
        family = self.case.family
        tuning = _Tuning(self, family)
        tried = tuning.all_trials(self.trials)
        best = max(tried, key=lambda one: one.dev)
        norm = best.merge.norm if self.norm is None else self.norm
        rules = {"default": tried[0], "tuned": best, "matched": tuning.rescaled(best, norm)}
        scores: dict[bytes, Pass] = {}
        rows = [self._row(family, rule, one, family.stored(one.merge), scores) for rule, one in rules.items()]
        if (of := EXACT.get(self.candidate.label)) is not None:
            one = rules[of]
            rows.append({**self._row(family, "float32", one, family.exact(one.merge), scores), "of": of})
        log = [[dict(one.parameters), one.merge.norm / family.base_norm, one.dev] for one in tried]
        return {"norm": norm, "rows": rows, "trials": log}

    def _row(
        self, family: Family, rule: str, one: _Trial, weights: Vector, scores: dict[bytes, Pass]
    ) -> dict[str, Any]:
        key = xxhash.xxh3_128_digest(weights.data)
        if key not in scores:
            every = (*self.case.tasks, *self.case.off)
            scores[key], _ = self.case.evaluations.test.passes(family.model(weights), family.home, every)
        test = {task: scores[key][task] for task in self.case.tasks}
        return {
            "seed": self.case.seed,
            "arm": self.case.arm,
            "set": self.case.set,
            "method": self.candidate.label,
            "rule": rule,
            "parameters": dict(one.parameters),
            "trials": 0 if rule == "default" else self.trials,
            "dev": one.dev,
            "test": test,
            **self.case.test.outcome(test).to_dict(),
            **off_task(self.case.off, scores[key]),
            "norm": one.merge.norm / family.base_norm,
            "stored_norm": family.change_norm(weights) / family.base_norm,
            **family.survival(one.merge, weights),
        }


class _Tuning:
    """Trials of one job; merges that differ in scale alone are made once."""

    def __init__(self, job: MergeJob, family: Family) -> None:
        self.case, self.candidate, self.measured = job.case, job.candidate, job.measured
        self.family = family
        self._known: dict[str, Merge] = {}

    def all_trials(self, trials: int) -> list[_Trial]:
        """The default setting, then wide, then close to the best of these."""
        tried = [self._default()]
        far, near = shares(trials)
        tried += [self._try(point) for point in wide(far)]
        best = max(tried, key=lambda one: one.dev)
        return [*tried, *(self._try(point) for point in close(best.point, near))]

    def rescaled(self, one: _Trial, norm: float) -> _Trial:
        """The same direction at another ‖δ*‖."""
        factor = norm / one.merge.norm if one.merge.norm else 0.0
        return self._tried(one.point, one.merge.scaled(factor), self._with_scale(one.parameters, factor))

    def _default(self) -> _Trial:
        merge = self._merge(self.candidate.fixed)
        size = merge.norm / self.family.sum_norm if self.family.sum_norm else 0.0
        point = SearchPoint.at(size or 1.0, self.candidate.default)
        return self._tried(point, merge, self.candidate.fixed)

    def _try(self, point: SearchPoint) -> _Trial:
        parameters = self.candidate.parameters(point.knob)
        merge = self._merge(parameters)
        factor = point.size * self.family.sum_norm / merge.norm if merge.norm else 0.0
        return self._tried(point, merge.scaled(factor), self._with_scale(parameters, factor))

    def _merge(self, parameters: Mapping[str, Any]) -> Merge:
        key = repr(sorted(parameters.items()))
        if key not in self._known:
            self._known[key] = merge_of(self.case, self.candidate, parameters, self.measured)
        return self._known[key]

    def _with_scale(self, parameters: Mapping[str, Any], factor: float) -> dict[str, Any]:
        rest, before = self.candidate.split(parameters)
        return {**rest, self.candidate.scale: before * factor}

    def _tried(self, point: SearchPoint, merge: Merge, parameters: Mapping[str, Any]) -> _Trial:
        found, _ = self.case.evaluations.dev.passes(
            self.family.model(self.family.stored(merge)), self.family.home, self.case.tasks
        )
        return _Trial(point, merge, parameters, goal(self.case.dev.outcome(found), found))
