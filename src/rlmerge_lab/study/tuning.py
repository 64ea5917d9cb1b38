"""One method on one set of experts: tuned on dev, scored on test as it comes, tuned, and at the common norm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import xxhash

from rlmerge_lab.study.cases import Case, decided_by
from rlmerge_lab.study.contenders import Contender
from rlmerge_lab.study.family import Family, Merge, Vector
from rlmerge_lab.study.judging import Pass, goal
from rlmerge_lab.study.sensing import SensitivityJob
from rlmerge_lab.study.trials import HIGH, LOW, WINDOW, Spot, close, shares, wide

REFERENCE = "task_arithmetic"
"""The method whose tuned change sets the common norm of its set."""

EXACT = {"linear": "default", REFERENCE: "tuned"}
"""Methods scored once more with float32 weights, and by which rule: what rounding to the base's type costs.

Averaging stands for itself as it comes: with a scale of its own it is task arithmetic."""


def made(
    case: Case, contender: Contender, parameters: Mapping[str, Any], measured: Sequence[SensitivityJob] = ()
) -> Merge:
    """The contender's merge of a set with ``parameters`` as a result has them, its scale among them."""
    rest, factor = contender.split(parameters)
    if contender.measured:
        inputs = {contender.measured: [job.directory for job in measured]}
        return case.family.merge_files(contender.method, rest, case.seed, inputs).scaled(factor)
    return case.family.merge(contender.method, rest, case.seed).scaled(factor)


@dataclass(frozen=True, slots=True)
class _Tried:
    """A trial carried out: where, the change before rounding, the method's parameters, and what dev says."""

    spot: Spot
    merge: Merge
    parameters: Mapping[str, Any]
    dev: float


@dataclass(frozen=True, slots=True)
class MergeJob:
    """Tunes ``contender`` with ``trials`` trials on dev and scores it on test.

    ``norm`` is the common ‖δ*‖ of the set (None: the method sets it itself); ``measured`` are the finished measurements
    of the experts, where the method needs them.
    """

    case: Case
    contender: Contender
    trials: int
    norm: float | None = None
    measured: tuple[SensitivityJob, ...] = ()

    @property
    def label(self) -> str:
        return f"merge.{self.case.name}.{self.contender.label}"

    @property
    def identity(self) -> Mapping[str, Any]:
        return decided_by(
            "merge",
            case=self.case.identity,
            contender={"label": self.contender.label, **self.contender.to_dict()},
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
        if (of := EXACT.get(self.contender.label)) is not None:
            one = rules[of]
            rows.append({**self._row(family, "float32", one, family.exact(one.merge), scores), "of": of})
        log = [[dict(one.parameters), one.merge.norm / family.base_norm, one.dev] for one in tried]
        return {"norm": norm, "rows": rows, "trials": log}

    def _row(
        self, family: Family, rule: str, one: _Tried, weights: Vector, scores: dict[bytes, Pass]
    ) -> dict[str, Any]:
        key = xxhash.xxh3_128_digest(weights.data)
        if key not in scores:
            scores[key], _ = self.case.exams.test.passes(family.model(weights), family.home, self.case.tasks)
        test = scores[key]
        return {
            "seed": self.case.seed,
            "arm": self.case.arm,
            "set": self.case.set,
            "method": self.contender.label,
            "rule": rule,
            "parameters": dict(one.parameters),
            "trials": 0 if rule == "default" else self.trials,
            "dev": one.dev,
            "test": test,
            **self.case.test.outcome(test).to_dict(),
            "norm": one.merge.norm / family.base_norm,
            "stored_norm": family.change_norm(weights) / family.base_norm,
            **family.survival(one.merge, weights),
        }


class _Tuning:
    """Trials of one job; merges that differ in scale alone are made once."""

    def __init__(self, job: MergeJob, family: Family) -> None:
        self.case, self.contender, self.measured = job.case, job.contender, job.measured
        self.family = family
        self._known: dict[str, Merge] = {}

    def all_trials(self, trials: int) -> list[_Tried]:
        """The default setting, then wide, then close to the best of these."""
        tried = [self._default()]
        far, near = shares(trials)
        tried += [self._try(spot) for spot in wide(far)]
        best = max(tried, key=lambda one: one.dev)
        return [*tried, *(self._try(spot) for spot in close(best.spot, near))]

    def rescaled(self, one: _Tried, norm: float) -> _Tried:
        """The same direction at another ‖δ*‖."""
        factor = norm / one.merge.norm if one.merge.norm else 0.0
        return self._tried(one.spot, one.merge.scaled(factor), self._with_scale(one.parameters, factor))

    def _default(self) -> _Tried:
        merge = self._merge(self.contender.fixed)
        size = merge.norm / self.family.sum_norm if self.family.sum_norm else 0.0
        spot = Spot.at(size or 1.0, self.contender.default)
        return self._tried(spot, merge, self.contender.fixed)

    def _try(self, spot: Spot) -> _Tried:
        parameters = self.contender.parameters(spot.knob)
        merge = self._merge(parameters)
        factor = spot.size * self.family.sum_norm / merge.norm if merge.norm else 0.0
        return self._tried(spot, merge.scaled(factor), self._with_scale(parameters, factor))

    def _merge(self, parameters: Mapping[str, Any]) -> Merge:
        key = repr(sorted(parameters.items()))
        if key not in self._known:
            self._known[key] = made(self.case, self.contender, parameters, self.measured)
        return self._known[key]

    def _with_scale(self, parameters: Mapping[str, Any], factor: float) -> dict[str, Any]:
        rest, before = self.contender.split(parameters)
        return {**rest, self.contender.scale: before * factor}

    def _tried(self, spot: Spot, merge: Merge, parameters: Mapping[str, Any]) -> _Tried:
        found, _ = self.case.exams.dev.passes(
            self.family.model(self.family.stored(merge)), self.family.home, self.case.tasks
        )
        return _Tried(spot, merge, parameters, goal(self.case.dev.outcome(found), found))
