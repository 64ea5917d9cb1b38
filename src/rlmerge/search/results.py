"""What a search found, as frozen data with a versioned plain form."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlmerge._version import __version__
from rlmerge.evaluate.statistics import Interval
from rlmerge.recipe.tree import Scalar

SCHEMA = "rlmerge.tune/1"


@dataclass(frozen=True, slots=True)
class Trial:
    """One candidate of the search.

    ``state`` is ``complete``, ``pruned`` (stopped on a part of the items) or ``fail``. ``at_levels`` holds the
    objective on each share of the items it was scored on, ``level`` the last of them; ``seconds`` are those of scoring.
    """

    number: int
    state: str
    values: tuple[float, ...]
    parameters: Mapping[str, Scalar]
    origin: str
    level: int
    at_levels: Mapping[int, float]
    seconds: float
    scores: Mapping[str, float]
    proxies: Mapping[str, float]
    error: str | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "number": self.number,
            "state": self.state,
            "values": list(self.values),
            "parameters": dict(self.parameters),
            "origin": self.origin,
            "level": self.level,
            "at_levels": {str(level): value for level, value in self.at_levels.items()},
            "seconds": self.seconds,
            "scores": dict(self.scores),
            "proxies": dict(self.proxies),
            "error": self.error,
        }


@dataclass(frozen=True, slots=True)
class Finalist:
    """A model of the honest end: its objective on the items it was chosen by, and on those that chose nothing.

    ``role`` is ``winner``, ``task arithmetic``, ``expert`` or ``base``.
    """

    name: str
    role: str
    dev: float
    test: Interval | None
    scores: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        test = None if self.test is None else self.test.to_dict()
        return {"name": self.name, "role": self.role, "dev": self.dev, "test": test, "scores": dict(self.scores)}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Winner minus ``against`` in one objective, on the same bootstrap samples of the test items."""

    against: str
    objective: str
    difference: Interval
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "against": self.against,
            "objective": self.objective,
            "difference": self.difference.to_dict(),
            "verdict": self.verdict,
        }


@dataclass(frozen=True, slots=True)
class Correlation:
    """Spearman's rank correlation of a proxy with the real objective over ``trials`` candidates; None if constant."""

    proxy: str
    objective: str
    rho: float | None
    trials: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"proxy": self.proxy, "objective": self.objective, "rho": self.rho, "trials": self.trials}


@dataclass(frozen=True, slots=True)
class Tuning:
    """A finished search. ``best`` is the number of the winning trial, None where the baseline won; ``front`` are the
    numbers of the trials that no other beats in every objective. ``evaluated`` counts what was scored beside trials:
    the recipes of the baseline. ``reads`` is how often this call read the models."""

    out: Path
    base: str
    experts: tuple[str, ...]
    tasks: tuple[str, ...]
    objectives: tuple[tuple[str, str], ...]
    dimensions: tuple[Mapping[str, Any], ...]
    shares: tuple[float, ...]
    trials: tuple[Trial, ...]
    baseline: tuple[Mapping[str, Any], ...]
    best: int | None
    front: tuple[int, ...]
    recipe: str
    importance: Mapping[str, float]
    correlations: tuple[Correlation, ...]
    finalists: tuple[Finalist, ...]
    comparisons: tuple[Comparison, ...]
    reads: int
    seconds: float
    merged: Path | None
    warnings: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def to_dict(self) -> dict[str, Any]:
        """Plain data under the schema ``rlmerge.tune/1``; a figure that is not known is None."""
        found = {
            "schema": SCHEMA,
            "rlmerge": __version__,
            "out": str(self.out),
            "base": self.base,
            "experts": list(self.experts),
            "tasks": list(self.tasks),
            "objectives": [{"name": name, "meaning": meaning} for name, meaning in self.objectives],
            "dimensions": [dict(each) for each in self.dimensions],
            "shares": list(self.shares),
            "settings": dict(self.settings),
            "trials": [each.to_dict() for each in self.trials],
            "baseline": [dict(each) for each in self.baseline],
            "best": self.best,
            "front": list(self.front),
            "recipe": self.recipe,
            "importance": dict(self.importance),
            "correlations": [each.to_dict() for each in self.correlations],
            "finalists": [each.to_dict() for each in self.finalists],
            "comparisons": [each.to_dict() for each in self.comparisons],
            "reads": self.reads,
            "seconds": self.seconds,
            "merged": None if self.merged is None else str(self.merged),
            "warnings": list(self.warnings),
        }
        return _finite(found)

    def to_json(self) -> str:
        """``to_dict`` as JSON."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)

    def to_html(self) -> str:
        """The report as one self-contained page."""
        from .report.page import tune_html

        return tune_html(self.to_dict())


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(entry) for name, entry in value.items()}
    return [_finite(entry) for entry in value] if isinstance(value, list) else value
