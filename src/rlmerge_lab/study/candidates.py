"""Which methods merge which set of experts, what of each is tuned, and why others cannot take part."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rlmerge import methods
from rlmerge.methods import Method
from rlmerge.methods.parts import LAMBDA

from .budget import StudyBudget
from .cases import Case

REFERENCE = "task_arithmetic"
"""The method whose tuned change sets the common norm of its set."""


@dataclass(frozen=True, slots=True)
class Knob:
    """A method's main parameter and the range tuning looks at: ``log`` evenly in the logarithm, ``whole`` numbers."""

    name: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    whole: bool = False

    def at(self, position: float) -> float:
        """The value at ``position`` in [0, 1] of the range."""
        if self.log:
            return self.low * (self.high / self.low) ** position
        value = self.low + position * (self.high - self.low)
        return float(round(value)) if self.whole else value

    def position(self, value: float) -> float:
        """Where in the range ``value`` lies; its nearer end if outside."""
        if self.log:
            value = max(value, self.low)
            return min(1.0, math.log(value / self.low) / math.log(self.high / self.low))
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    def to_dict(self) -> dict[str, Any]:
        """Name and range; ``log`` and ``whole`` only where they are so, as results of earlier versions have it."""
        return {key: value for key, value in asdict(self).items() if value is not False}


KNOBS: Mapping[str, Knob] = {
    "ties": Knob("density", 0.1, 1.0),
    "dare_linear": Knob("density", 0.1, 1.0),
    "dare_ties": Knob("density", 0.1, 1.0),
    # Probabilities spread over density ± 0.15 by default, and stay within [0, 1].
    "della": Knob("density", 0.15, 0.85),
    "della_linear": Knob("density", 0.15, 0.85),
    "breadcrumbs": Knob("density", 0.1, 0.99),
    "breadcrumbs_ties": Knob("density", 0.1, 0.99),
    "ram": Knob("lambda", 0.5, 2.0),
    "ram_plus": Knob("r"),
    "ramplus_tl": Knob("r"),
    "ram_percentile": Knob("percentile", 0.0, 99.0),
    "sce": Knob("select_topk", 0.1, 1.0),
    "sar_merging": Knob("density", 0.1, 1.0),
    "scf_rkl": Knob("rho", 0.05, 1.0),
    "regmean": Knob("alpha"),
    "consensus_ta": Knob("mask_lambda", 0.1, 0.9),
    "cabs": Knob("n", 16.0, 256.0, whole=True),
    "pcb": Knob("ratio", 0.05, 0.95),
    # From nearly the inverse of the inputs' moments to nearly task arithmetic.
    "covariance": Knob("rho", 0.01, 100.0, log=True),
    "actmat": Knob("ridge", 1e-6, 1.0, log=True),
    "ace": Knob("eps", 1e-8, 1e-2, log=True),
    "wudi": Knob("learning_rate", 1e-7, 1e-4, log=True),
    "swudi": Knob("rank_share", 0.1, 1.0),
    "tsv": Knob("share", 0.25, 1.0),
    "iso_cts": Knob("common_space_fraction", 0.0, 1.0),
    "resmerge": Knob("head_budget", 0.0, 1.0),
}
"""Main parameters and ranges. Methods that are not here, whose choices are switches, have their scale tuned alone."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A method as it takes part: under ``label``, with ``fixed`` parameters and perhaps a ``measured`` input.

    ``scale`` is what the factor on the merged change is called in results: ``lambda`` where the method has this very
    parameter, else ``scale``, which is applied after it.
    """

    label: str
    method: str
    knob: Knob | None
    scale: str
    measured: str | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def default(self) -> float:
        """Position of the main parameter's default in its range."""
        if self.knob is None:
            return 0.0
        value = methods.get(self.method).parameter(self.knob.name).default
        return self.knob.position(float(value or 0.0))

    def parameters(self, position: float) -> dict[str, Any]:
        """The method's parameters with the main one at ``position`` in its range."""
        return {**self.fixed, **({} if self.knob is None else {self.knob.name: self.knob.at(position)})}

    def split(self, parameters: Mapping[str, Any]) -> tuple[dict[str, Any], float]:
        """From a result's parameters back to those the method is called with and the factor on its change."""
        rest = {name: value for name, value in parameters.items() if name != self.scale}
        return rest, float(parameters.get(self.scale, 1.0))

    def to_dict(self) -> dict[str, Any]:
        """What a report says about it, the paper and its status included."""
        method = methods.get(self.method)
        knob = None if self.knob is None else self.knob.to_dict()
        return {
            "method": self.method,
            "paper": method.paper,
            "status": method.status,
            "main": knob,
            "scale": self.scale,
            "measured": self.measured,
            "fixed": dict(self.fixed),
        }


def candidates(names: Sequence[str], experts: int, measured: bool) -> tuple[list[Candidate], dict[str, str]]:
    """Those of ``names`` that can merge so many ``experts``, and for the others why they cannot.

    A method that can use a measured input takes part a second time, as ``name:fisher`` or ``name:gram``; with
    ``measured`` false there is none, and such variants and methods that need one are left out.
    """
    found: list[Candidate] = []
    skipped: dict[str, str] = {}
    for name in names:
        method = methods.get(name)
        reason = _reason(method, experts)
        if reason:
            skipped[name] = reason
            continue
        each = _variants(method)
        found += [candidate for candidate in each if measured or candidate.measured is None]
        if not measured:
            absent = (candidate for candidate in each if candidate.measured is not None)
            skipped |= {
                candidate.label: f"no {candidate.measured} was measured on these experts" for candidate in absent
            }
    return found, skipped


def _reason(method: Method, experts: int) -> str | None:
    if experts < method.min_experts:
        return f"takes at least {method.min_experts} experts, not {experts}"
    if method.max_experts is not None and experts > method.max_experts:
        return f"takes at most {method.max_experts} expert{'s' * (method.max_experts > 1)}, not {experts}"
    unset = next((p.name for p in method.parameters if p.default is None), None)
    return f"has no default for '{unset}'" if unset else None


def _variants(method: Method) -> list[Candidate]:
    knob = KNOBS.get(method.name)
    if knob is None and "density" in method.names:
        knob = Knob("density", 0.1, 1.0)
    scale = "lambda" if LAMBDA in method.parameters else "scale"
    plain = Candidate(method.name, method.name, knob, scale)
    if not method.inputs:
        return [plain]
    defaults = {p.argument: p.default for p in method.parameters if p.is_static}
    measured = method.inputs[0]
    if method.needs_inputs(defaults):
        own = Candidate(method.name, method.name, knob, scale, measured)
        # What has no measured input keeps little of small changes where it is averaged: both are tried.
        summed = Candidate(f"{method.name}:sum", method.name, knob, scale, measured, {"others": "sum"})
        return [own, summed] if "others" in method.names else [own]
    importance = {"importance": "fisher"} if method.name == "scf_rkl" else {}
    label = f"{method.name}:{_MEASURED.get(measured, measured)}"
    return [plain, Candidate(label, method.name, knob, scale, measured, importance)]


_MEASURED = {"sensitivity": "fisher"}
"""What a second entry is called by its measured input, where not by the input's own name."""


class Candidates:
    """The candidates of every set, and a record of who took part and who did not."""

    def __init__(self, budget: StudyBudget) -> None:
        self.budget = budget
        self.present: dict[str, Candidate] = {}
        self.absent: dict[tuple[str, int], str] = {}

    def of(self, case: Case, measured: bool) -> list[Candidate]:
        """The candidates that merge ``case``, task arithmetic always first; ``measured``: their inputs are there."""
        found, skipped = candidates(self._names(case), len(case.experts), measured)
        self.present |= {candidate.label: candidate for candidate in found}
        self.absent |= {(label, len(case.experts)): reason for label, reason in skipped.items()}
        return found

    def measures(self, case: Case) -> bool:
        """Whether a candidate of ``case`` asks for sensitivities."""
        return any(one.measured for one in candidates(self._names(case), len(case.experts), measured=True)[0])

    def skipped(self) -> list[dict[str, Any]]:
        """Who never merged a set of some size, and why."""
        return [{"method": label, "experts": count, "reason": reason} for (label, count), reason in self.absent.items()]

    def _names(self, case: Case) -> list[str]:
        if case.set != "all":
            named = self.budget.pair_methods
        elif case.arm not in self.budget.main_arms:
            named = self.budget.other_methods
        else:
            named = methods.names() if self.budget.methods is None else self.budget.methods
        return list(dict.fromkeys((REFERENCE, *named)))
