"""What a calibration found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlmerge._version import __version__
from rlmerge.frozen import frozen
from rlmerge.jsondata import plain_fields

SCHEMA = "rlmerge.calibrate/1"

STAGES = {
    "base": "the base",
    "shared": "1/K each",
    "given": "the recipe as given",
    "ones": "1 each",
    "calibrated": "calibrated",
}
"""Coefficients that are compared, and how reports call them."""


@frozen
class Divergence:
    """How far a model is from one expert, or from the base on prompts of no expert (``role`` drift).

    ``fitted`` and ``held_out`` map the names of ``STAGES`` to nats a token of KL(expert ‖ merged), on the prompts that
    chose the coefficients and on those that chose nothing; ``held_out`` is empty where none were left. ``told_apart``
    is the share of the expert's probability that its targets tell apart, token by token.
    """

    name: str
    role: str
    weight: float
    data: str
    data_digest: str
    prompts: int
    held_out_prompts: int
    sequences: int
    tokens: int
    truncated: int
    dropped: int
    told_apart: float
    fitted: Mapping[str, float]
    held_out: Mapping[str, float]


@frozen
class Calibration:
    """The result of ``calibrate``: a recipe, and what its values rest on.

    ``values`` holds a row for each expert (one for all of them where ``parameter`` is lambda) and a column for each of
    ``groups``, as the recipe has them; ``start`` is the stage that the search began at. ``objective`` maps stages to
    the weighted sum of ``divergences`` on the prompts fitted on. ``history`` is the objective, with its ridge, at every
    evaluation. ``nonlinear`` is how far the method is from linear in its parameter. ``held`` says what was in memory.
    """

    out: Path
    recipe: str
    method: str
    parameter: str
    experts: tuple[str, ...]
    groups: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    start: str
    objective: Mapping[str, float]
    divergences: tuple[Divergence, ...]
    history: tuple[float, ...]
    converged: bool
    nonlinear: float
    held: str
    seconds: float
    peak_memory: int
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    warnings: tuple[str, ...]

    @property
    def rows(self) -> tuple[str, ...]:
        """What each row of ``values`` belongs to."""
        return self.experts if self.parameter == "weight" else ("all experts",)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, which JSON can hold."""
        return {"schema": SCHEMA, "rlmerge": __version__, **plain_fields(self), "rows": list(self.rows)}

    def to_json(self) -> str:
        """``to_dict`` as JSON text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
