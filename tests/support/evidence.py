"""Evidence with every figure set by hand, so that a verdict rule can be tested on the number it turns on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from rlmerge.geometry.definitions import Measure
from rlmerge.geometry.survival import ExpertOutcome
from rlmerge.inspection import Expert, Forecast, Model, Pair, TensorRow
from rlmerge.inspection.evidence import Difference, Evidence


def evidence(
    *,
    relative: Sequence[float] = (0.01, 0.012),
    unchanged: Sequence[float] = (0.8, 0.8),
    small: Sequence[float] | None = None,
    own: Sequence[float] = (0.5, 0.5),
    nonfinite: Sequence[int] = (0, 0),
    dtypes: Sequence[str] = ("bfloat16", "bfloat16", "bfloat16"),
    jaccard: float = 0.2,
    chance: float = 0.1,
    cosine: float = 0.01,
    conflict: float = 0.5,
    spread: float = 0.001,
    distance: float = math.sqrt(2),
    survived: float = 0.99,
    kept: float = 0.5,
    rows: Sequence[tuple[tuple[int, ...], float]] = (((10, 10), 0.5),),
    structure: tuple[str, ...] = (),
    identities: tuple[Difference, ...] = (),
    gram: np.ndarray | None = None,
) -> Evidence:
    """Experts e0, e1 … of a base with ‖θ₀‖ = 1; every pair and every row has the same figures."""
    names = [f"e{k}" for k in range(len(relative))]
    kind = dtypes[0]

    def measures(**values: float) -> dict[str, Measure]:
        nulls = {"jaccard": (chance, None), "cosine": (0.0, 0.001), "conflict_share": (0.5, spread)}
        return {key: Measure(key, value, kind, *nulls.get(key, (None, None))) for key, value in values.items()}

    experts = tuple(
        Expert(
            Model(name, f"models/{name}", None, dtypes[1 + k], 1, 100, name),
            100,
            nonfinite[k],
            measures(
                norm=relative[k],
                relative_norm=relative[k],
                unchanged_bits=unchanged[k],
                small_absolute=(small or unchanged)[k],
            ),
            (own[k], *([1 - own[k]] + [0.0] * (len(names) - 2))),
            (0.5,) * len(names),
            {-10: 20},
        )
        for k, name in enumerate(names)
    )
    pairs = tuple(
        Pair(
            a,
            b,
            measures(
                jaccard=jaccard,
                cosine=cosine,
                conflict_share=conflict,
                sign_conflict=conflict,
                conflict_norm=1e-4,
                distance=distance,
            ),
        )
        for a, b in combinations(names, 2)
    )
    outcomes = tuple(
        ExpertOutcome(n, 20, survived, 1 - survived, own[k], kept, kept, kept) for k, n in enumerate(names)
    )
    forecasts = tuple(
        Forecast(method, method, {}, "exact", kind, survived, 1.0, outcomes)
        for method in ("linear", "task_arithmetic", "ram")
    )
    table = tuple(
        TensorRow(
            f"t{i}", "norm", None, shape, kind, (share,) * len(names), (0.1,) * len(names), (0.5,) * len(names), 0
        )
        for i, (shape, share) in enumerate(rows)
    )
    default = np.diag(np.square(relative))
    base = Model("base", "models/base", None, kind, 1, 100, "base")
    found = default if gram is None else gram
    return Evidence(base, experts, pairs, table, forecasts, structure, identities, found)
