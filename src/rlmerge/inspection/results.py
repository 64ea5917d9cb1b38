"""The result of an inspection: frozen dataclasses that become JSON with a versioned schema, or an HTML report."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Literal

from rlmerge.frozen import frozen
from rlmerge.geometry import definitions
from rlmerge.geometry.definitions import Measure
from rlmerge.geometry.spectral import SpectralShift
from rlmerge.geometry.survival import ExpertOutcome
from rlmerge.geometry.trend import Trend
from rlmerge.jsondata import plain_fields

SCHEMA = "rlmerge.inspect/1"
"""Version of the JSON: the number grows when a field changes its meaning or goes away; new fields do not count."""

Level = Literal["good", "info", "warning", "problem"]


@frozen(slots=True)
class Model:
    """A checkpoint: ``name`` is short and unique in the report, ``reference`` what the user wrote."""

    name: str
    reference: str
    revision: str | None
    dtype: str
    tensors: int
    parameters: int
    fingerprint: str


@frozen
class Expert:
    """One expert's task vector. ``shared_exactly`` [K]: share of its changes that exactly 1 … K experts made, beside
    chance; ``magnitudes``: changed coordinates by exponent e of 2^e <= |τ| < 2^(e+1)."""

    model: Model
    entries: int
    nonfinite: int
    figures: Mapping[str, Measure]
    shared_exactly: tuple[float, ...]
    shared_by_chance: tuple[float, ...]
    magnitudes: Mapping[int, int]


@frozen
class Pair:
    """Overlap and conflict of two experts, by name."""

    a: str
    b: str
    figures: Mapping[str, Measure]


@frozen
class Group:
    """The tensors of one module type or one layer. Per expert [K]: share of entries unchanged, ‖τ‖/‖θ₀‖, and the share
    of the expert's squared update that sits here."""

    label: str
    tensors: int
    entries: int
    unchanged: tuple[float, ...]
    relative_norm: tuple[float, ...]
    energy: tuple[float, ...]


@frozen
class TrendOf:
    """How a figure of one expert moves with depth, per layer."""

    expert: str
    figure: str
    trend: Trend


@frozen
class TensorRow:
    """One tensor; figures per expert [K], NaN where an expert lacks it."""

    name: str
    kind: str
    layer: int | None
    shape: tuple[int, ...]
    dtype: str
    unchanged: tuple[float, ...]
    relative_norm: tuple[float, ...]
    gini: tuple[float, ...]
    nonfinite: int


@frozen
class Forecast:
    """What a method's default recipe would leave, rounded to ``dtype``; nothing is written.

    ``survived`` is the share of coordinates any expert changed whose output differs from the base. ``sampled`` is the
    share of the coordinates that were looked at: 1 means exact. ``status`` is the method's. ``routers`` is ``survived``
    of the routers of a mixture of experts alone, NaN where there are none.
    """

    label: str
    method: str
    parameters: Mapping[str, float]
    status: str
    dtype: str
    survived: float
    sampled: float
    experts: tuple[ExpertOutcome, ...]
    routers: float = math.nan


@frozen
class Spectrum(SpectralShift):
    """Spectral figures of one matrix and expert. ``error`` bounds the relative error of the singular values; 0 means
    that the decomposition was complete."""

    tensor: str
    expert: str


@frozen
class Finding:
    """A verdict in plain language. ``figures`` are the numbers it rests on, by name."""

    rule: str
    level: Level
    title: str
    text: str
    figures: Mapping[str, float]


@frozen
class Recommendation:
    """A recipe to start from: runnable YAML, and a reason for each of its values."""

    yaml: str
    reasons: Mapping[str, str]


@frozen
class Sampling:
    """What a sampled inspection looked at: ``share`` of all coordinates, in so many ``blocks``.

    ``experts`` and ``pairs`` hold the standard error of each figure, in the order of the inspection's own; 0 where
    everything was read, NaN where it cannot be told.
    """

    coordinates: int
    share: float
    blocks: int
    experts: tuple[Mapping[str, float], ...]
    pairs: tuple[Mapping[str, float], ...]


@frozen
class Inspection:
    """Everything an inspection found. ``seconds`` are in all, ``measuring`` those of the pass over every weight.

    ``routers`` are those of a mixture of experts, which ``modules`` hold too; None in other models. ``sampling`` says
    how far figures of a part of the weights may be from those of all; None where all were read.
    """

    version: str
    base: Model
    experts: tuple[Expert, ...]
    pairs: tuple[Pair, ...]
    exactly: tuple[float, ...]
    modules: tuple[Group, ...]
    layers: tuple[Group, ...]
    trends: tuple[TrendOf, ...]
    tensors: tuple[TensorRow, ...]
    forecasts: tuple[Forecast, ...]
    spectra: tuple[Spectrum, ...]
    structure: tuple[str, ...]
    findings: tuple[Finding, ...]
    recommendation: Recommendation | None
    after: Forecast | None
    seconds: float
    measuring: float
    bytes_read: int
    routers: Group | None = None
    sampling: Sampling | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Short names of the experts."""
        return tuple(expert.model.name for expert in self.experts)

    def pair(self, a: str, b: str) -> Pair | None:
        """The pair of two experts in either order."""
        return next((p for p in self.pairs if {p.a, p.b} == {a, b}), None)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; numbers that JSON lacks (NaN, infinity) are None."""
        return {"schema": SCHEMA, **plain_fields(self), "definitions": definitions.to_dict()}

    def to_json(self) -> str:
        """One JSON object; see ``SCHEMA``."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False, indent=1)

    def to_html(self) -> str:
        """A self-contained report."""
        from rlmerge.inspection.report.page import inspect_html

        return inspect_html(self)
