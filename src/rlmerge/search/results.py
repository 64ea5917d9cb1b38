"""What a search found, as frozen data with a versioned plain form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from rlmerge._version import __version__
from rlmerge.evaluate.statistics import Interval
from rlmerge.frozen import frozen
from rlmerge.jsondata import plain_fields
from rlmerge.recipe.tree import Scalar

SCHEMA = "rlmerge.tune/1"


@frozen(slots=True)
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


@frozen(slots=True)
class Finalist:
    """A model of the honest end: its objective on the items it was chosen by, and on those that chose nothing.

    ``role`` is ``winner``, ``task arithmetic``, ``expert`` or ``base``.
    """

    name: str
    role: str
    dev: float
    test: Interval | None
    scores: Mapping[str, float]


@frozen(slots=True)
class Comparison:
    """Winner minus ``against`` in one objective, on the same bootstrap samples of the test items."""

    against: str
    objective: str
    difference: Interval
    verdict: str


@frozen(slots=True)
class Correlation:
    """Spearman's rank correlation of a proxy with the real objective over ``trials`` candidates; None if constant."""

    proxy: str
    objective: str
    rho: float | None
    trials: int


@frozen(slots=True)
class Tuning:
    """A finished search. ``best`` is the number of the winning trial, None where the baseline won; ``front`` are the
    numbers of the trials that no other beats in every objective. ``evaluated`` counts what was scored beside trials:
    the recipes of the baseline. ``reads`` is how often this call read the models."""

    out: Path
    base: str
    experts: tuple[str, ...]
    tasks: tuple[str, ...]
    objectives: tuple[Mapping[str, str], ...]
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
        return {"schema": SCHEMA, "rlmerge": __version__} | plain_fields(self)

    def to_json(self) -> str:
        """``to_dict`` as JSON."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)

    def to_html(self) -> str:
        """The report as one self-contained page."""
        from .report.page import tune_html

        return tune_html(self.to_dict())
