"""What a merge did: frozen data for people, scripts and the model card."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from rlmerge.addresses import addressed
from rlmerge.checkpoint.module_kinds import ROUTER, kind_of
from rlmerge.frozen import frozen
from rlmerge.methods.method import Share

from .job import Job

ERASED_WARNING = 0.10
"""Share of an expert's changes lost to rounding above which a merge warns."""

TAKEN = 0.01
"""How far routers may be from those of one model, as a share of what training moved them, to be called that model's."""


@frozen
class ExpertSurvival:
    """What became of one expert's changes.

    ``changed`` coordinates differ from the base; ``survived`` of them still do after rounding to the output type;
    ``erased`` ones the formula changed but rounding took back (the rest cancelled or were dropped by the method);
    ``unique`` ones no other expert changed. ``requested`` is the coefficient Σ(merged − θ₀)τ / Στ² that the formula
    gave the expert's unique changes, ``realised`` the same of what is stored; ``projection`` is ⟨out − θ₀, τ⟩ / ‖τ‖²
    over all coordinates. None where there is nothing to divide by.
    """

    name: str
    changed: int
    survived: int
    unique: int
    erased: int
    requested: float | None
    realised: float | None
    projection: float | None

    @property
    def survival(self) -> float | None:
        """Share of the changes that survived."""
        return self.survived / self.changed if self.changed else None


@frozen
class RouterOutcome(ExpertSurvival):
    """What became of one expert's routers.

    ``moved`` is ‖θ_k − θ₀‖ / ‖θ₀‖ and ``distance`` ‖out − θ_k‖ / ‖θ₀‖ over all routers; None where that is no number.
    """

    moved: float | None
    distance: float | None


@frozen
class Routers:
    """What became of the routers of a mixture of experts: few weights, on which it depends what all others are for.

    Counts as for the whole model; ``moved`` is ‖out − θ₀‖ / ‖θ₀‖.
    """

    tensors: int
    parameters: int
    changed: int
    survived: int
    moved: float | None
    experts: tuple[RouterOutcome, ...]

    @property
    def is_mixed(self) -> bool:
        """Whether they are of several experts, rather than the base's or (nearly) those of one."""
        moves = [expert.moved for expert in self.experts if expert.moved]
        apart = [x for x in (self.moved, *(expert.distance for expert in self.experts)) if x is not None]
        return len(moves) > 1 and bool(apart) and min(apart) > TAKEN * max(moves)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        experts = [{**asdict(expert), "survival": expert.survival} for expert in self.experts]
        return {**asdict(self), "experts": experts, "mixed": self.is_mixed}


@frozen
class Detail:
    """A ratio the method measured while it merged: over the whole model, and by tensor."""

    label: str
    value: float | None
    tensors: Mapping[str, float]

    @property
    def range(self) -> tuple[float, float] | None:
        """Smallest and largest ratio of a tensor."""
        return (min(self.tensors.values()), max(self.tensors.values())) if self.tensors else None


@frozen
class MergeResult:
    """A finished merge. Sizes in bytes; ``seconds`` is wall time; ``peak_memory`` is the process's anonymous peak.

    ``details`` is what the method measured of its own work; empty for most. ``routers`` is None but for mixtures of
    experts that are merged with a base.
    """

    out: Path
    method: str
    status: str
    seconds: float
    bytes_read: int
    bytes_written: int
    peak_memory: int | None
    tensors: int
    resumed: int
    parameters: int
    changed: int
    survived: int
    experts: tuple[ExpertSurvival, ...]
    warnings: tuple[str, ...]
    details: tuple[Detail, ...] = ()
    routers: Routers | None = None

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-able data."""
        return {
            **asdict(self),
            "out": addressed(str(self.out)),
            "experts": [{**asdict(expert), "survival": expert.survival} for expert in self.experts],
            "warnings": list(self.warnings),
            "details": [{**asdict(detail), "range": detail.range} for detail in self.details],
            "routers": self.routers.to_dict() if self.routers else None,
        }


class Tally:
    """Adds up the counts and sums of tensors by model."""

    def __init__(self, models: Sequence[str]) -> None:
        self.models = models
        self.tensors = self.changed = self.survived = 0
        self._counts = np.zeros((len(models), 4), np.int64)
        self._sums: list[list[list[float]]] = [[] for _ in models]

    def add(self, job: Job, stats: Mapping[str, Any]) -> None:
        """Add one tensor that was merged with a base."""
        self.tensors += 1
        counts = np.asarray(stats["counts"], np.int64)
        self.changed += int(counts[0])
        self.survived += int(counts[1])
        for k, model in enumerate(job.models):
            self._counts[model] += counts[2 + 4 * k : 6 + 4 * k]
            self._sums[model].append(stats["sums"][5 * k : 5 * k + 5])

    def survival(self) -> tuple[ExpertSurvival, ...]:
        """Per model totals; empty without a base."""
        if not self.tensors:
            return ()
        found: list[ExpertSurvival] = []
        for name, counts, parts in zip(self.models, self._counts, self._sums, strict=True):
            changed, survived, unique, erased = (int(x) for x in counts)
            sums = [math.fsum(column) for column in zip(*parts, strict=True)] or [0.0] * 5
            asked, stored, square, projected, total = sums
            ratios = _ratio(asked, square), _ratio(stored, square), _ratio(projected, total)
            found.append(ExpertSurvival(name, changed, survived, unique, erased, *ratios))
        return tuple(found)


class Account:
    """Adds up the accounting of all tensors by model; order does not matter. ``routers`` are counted on their own, too.

    ``tensors`` were merged, with or without a base.
    """

    def __init__(self, models: Sequence[str]) -> None:
        self.models = models
        self.all = Tally(models)
        self.routers = Tally(models)
        self.tensors = 0
        self.notes: Counter[str] = Counter()
        self.reports: dict[str, dict[str, Share]] = {}
        self.contents: dict[str, dict[str, str]] = {}

    @staticmethod
    def stats(
        sums: np.ndarray, counts: np.ndarray, notes: Sequence[str], report: Mapping[str, Share]
    ) -> dict[str, Any]:
        """JSON-able stats of one merged tensor: block sums [blocks, 5K] and counts [2 + 4K], both empty without a base,
        what the method warned of, and what it reports."""
        numbers = {"counts": counts.tolist(), "sums": [math.fsum(column) for column in sums.T]} if counts.size else {}
        shares = {label: [share.part, share.whole, share.power] for label, share in report.items()}
        return {**numbers, "notes": list(notes), **({"report": shares} if shares else {})}

    def add(self, job: Job, stats: Mapping[str, Any]) -> None:
        """Add one tensor's stats; those of a copied tensor are empty."""
        self.tensors += "notes" in stats
        self._add_contents(job, stats.get("inputs", ()))
        self.notes.update(stats.get("notes", ()))
        names = [self.models[model] for model in job.models]
        for label, share in stats.get("report", {}).items():
            self.reports.setdefault(_labelled(label, names), {})[job.name] = Share(*share)
        if "counts" not in stats:
            return
        self.all.add(job, stats)
        if kind_of(job.name) == ROUTER:
            self.routers.add(job, stats)

    def _add_contents(self, job: Job, digests: Sequence[str]) -> None:
        """Note what was read of base and experts for one tensor."""
        owners = [*(["base"] if job.base is not None else []), *(self.models[model] for model in job.models)]
        for owner, digest in zip(owners, digests, strict=False):
            self.contents.setdefault(owner, {})[job.name] = digest

    def contents_digests(self) -> dict[str, str]:
        """xxh3-128 of all that was read, for the base (as "base") and by model."""
        found: dict[str, str] = {}
        for owner, tensors in sorted(self.contents.items()):
            lines = "".join(f"{name}\t{tensors[name]}\n" for name in sorted(tensors))
            found[owner] = xxhash.xxh3_128_hexdigest(lines.encode())
        return found

    @property
    def changed(self) -> int:
        """Coordinates that any expert changed."""
        return self.all.changed

    @property
    def survived(self) -> int:
        """Those of them whose output differs from the base."""
        return self.all.survived

    def survival(self) -> tuple[ExpertSurvival, ...]:
        """Per model totals; empty without a base."""
        return self.all.survival()

    def details(self) -> tuple[Detail, ...]:
        """What the method reported, with its experts' names, over the model and by tensor."""
        found: list[Detail] = []
        for label, shares in self.reports.items():
            each = tuple(shares.values())
            total = Share(math.fsum(s.part for s in each), math.fsum(s.whole for s in each), each[0].power)
            tensors = {name: shares[name].value for name in sorted(shares)}
            defined = {name: value for name, value in tensors.items() if value is not None}
            found.append(Detail(label, total.value, defined))
        return tuple(found)

    def warnings(self, rounding: str | None, dtype: str) -> Iterable[str]:
        """What the method warned of, experts without changes, and changes that rounding erased, with the remedies."""
        for text, count in self.notes.items():
            yield f"{text} ({count} of {self.tensors} tensors)"
        for expert in self.survival():
            if not expert.changed:
                yield f"{expert.name} does not differ from the base"
            lost = expert.erased / expert.changed if expert.changed else 0.0
            if lost > ERASED_WARNING:
                remedies = ["write --out-dtype float32", "raise the coefficient (lambda or weight)"]
                if rounding == "nearest":
                    remedies.insert(0, "use --rounding stochastic")
                yield (
                    f"rounding to {dtype} erased {lost:.0%} of the changes of {expert.name}; "
                    f"{', '.join(remedies[:-1])}, or {remedies[-1]}"
                )


def _labelled(label: str, names: Sequence[str]) -> str:
    """A method's label with the name of expert k for each ``{k}``; no other brace means anything."""
    return re.sub(r"\{(\d+)\}", lambda found: names[int(found[1])] if int(found[1]) < len(names) else found[0], label)


def _ratio(numerator: float, denominator: float) -> float | None:
    found = numerator / denominator if denominator > 0 else math.nan
    return found if math.isfinite(found) else None
