"""The geometry of an arm's experts: size and sparsity of each, overlap and conflict of every pair."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlmerge.geometry.definitions import Measure
from rlmerge.geometry.figures import overlap, sparsity
from rlmerge.geometry.measure import measure
from rlmerge.kernels.dtypes import FLOAT32
from rlmerge_lab.study.cases import Case, decided_by


@dataclass(frozen=True, slots=True)
class ShapeJob:
    """Measures the experts of a case against the base, with the figures of ``rlmerge inspect``."""

    case: Case

    @property
    def label(self) -> str:
        return f"shape.{self.case.name}"

    @property
    def identity(self) -> Mapping[str, Any]:
        return decided_by("shape", models=self.case.identity["models"], tasks=self.case.tasks)

    @property
    def cost(self) -> int:
        return self.case.items(0, 0.1)

    def run(self) -> dict[str, Any]:
        """{"experts": {task: figures}, "pairs": one row per pair}; a figure of nothing is None."""
        family, tasks = self.case.family, self.case.tasks
        dtypes = [FLOAT32] * (1 + len(tasks))
        # Every stored value is exact in float32, so nothing is gained by going back to its own type.
        seen = measure(family.base, list(family.experts), dtypes)
        where = {"seed": self.case.seed, "arm": self.case.arm}
        experts = {task: _expert(sparsity(seen, k, family.dtype.name)) for k, task in enumerate(tasks)}
        pairs = [
            {**where, "a": tasks[a], "b": tasks[b], **_pair(overlap(seen, a, b, family.dtype.name))}
            for a in range(len(tasks))
            for b in range(a + 1, len(tasks))
        ]
        return {"experts": experts, "pairs": pairs}


def _expert(figures: Mapping[str, Measure]) -> dict[str, float | None]:
    named = {"norm": "relative_norm", "unchanged": "unchanged_bits", "small_absolute": "small_absolute", "gini": "gini"}
    return {name: _finite(figures[key].value) for name, key in named.items()}


def _pair(figures: Mapping[str, Measure]) -> dict[str, float | None]:
    cosine, jaccard = figures["cosine"], figures["jaccard"]
    plain = ("sign_conflict", "conflict_norm", "conflict_share", "distance")
    return {
        "cosine": _finite(cosine.value),
        "cosine_null_sd": _finite(cosine.null_sd),
        "jaccard": _finite(jaccard.value),
        "jaccard_chance": _finite(jaccard.null),
        **{key: _finite(figures[key].value) for key in plain},
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
