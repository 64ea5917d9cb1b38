"""The mergers of Table 2: rlmerge's own methods, run by NumPy in float64 on one simulated tensor with a base of zero.

The paper gives RAM in equations 4 and 5; for TIES and DARE, which it only names, their papers' densities are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from rlmerge import methods
from rlmerge.kernels.namespace import NumpyNamespace
from rlmerge.methods.ram import is_active
from rlmerge.scaling import article
from rlmerge.scaling.generator import Floats

_XP = NumpyNamespace(np.float64)


@dataclass(frozen=True, slots=True)
class Merger:
    """A row of Table 2: a registered method, the settings that differ from its defaults, and whether it draws."""

    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    random: bool = False

    def __call__(self, tau: Floats, generator: np.random.Generator) -> Floats:
        """Merged task vector [d] of ``tau`` [K, d]."""
        values = _values(self, tau)
        if self.random:
            values["uniform"] = generator.random(tau.shape)
        formula = methods.get(self.method).formula
        merged = formula(_XP, np.zeros(tau.shape[1]), tau, **methods.arguments(formula, values))
        return np.asarray(merged, dtype=np.float64)


_EQUATIONS_4_AND_5 = {"percentile": article.PERCENTILE, "lam": article.RESCALE}

MERGERS = {
    "Simple Avg": Merger("linear"),
    "TIES": Merger("ties", {"density": 0.2}),
    "DARE": Merger("dare_linear", {"density": 0.1, "normalize": True}, random=True),
    "RAM": Merger("ram_percentile", _EQUATIONS_4_AND_5),
    "RAM, strict mask": Merger("ram_percentile", {**_EQUATIONS_4_AND_5, "active": "strict"}),
    "RAM, authors' rule": Merger("ram"),
}
"""Table 2's four methods and two more: the same RAM with a mask that cannot be all true, and the published RAM."""


def active_masks(tau: Floats) -> npt.NDArray[np.bool_]:
    """Equation 4's masks [K, d]: ``|tau|`` at least the 90th percentile of each agent."""
    values = _values(MERGERS["RAM"], tau)
    return is_active(_XP, tau, values["active"], values["epsilon"], values["threshold"])


def _values(merger: Merger, tau: Floats) -> dict[str, Any]:
    """Parameters and statistics of a merger on ``tau``, shaped as its formula wants them."""
    method = methods.get(merger.method)
    experts, numel = tau.shape
    values: dict[str, Any] = {p.argument: p.default for p in method.parameters} | dict(merger.settings)
    values |= {p.argument: np.full((experts, 1), values[p.argument]) for p in method.parameters if p.per == "expert"}
    values |= {"experts": float(experts), "numel": numel}
    static = {p.argument: values[p.argument] for p in method.parameters if p.is_static}
    for stage in method.statistics(experts, **static):
        values |= {statistic.name: _statistic(statistic, tau, values) for statistic in stage}
    if method.derive:
        values |= {k: np.asarray(v)[:, None] for k, v in method.derive(values).items()}
    return values


def _statistic(statistic: methods.Statistic, tau: Floats, values: Mapping[str, Any]) -> Any:
    """The statistic by its definition: the r-th largest of each row, or its sum or count, in memory."""
    skipped = statistic.skip(values) if statistic.skip else None
    if skipped is not None:
        return skipped
    given = methods.arguments(statistic.formula, values)
    rows = np.stack(list(statistic.formula(_XP, np.zeros(tau.shape[1]), tau, **given)))
    if statistic.rank is None:
        return rows.sum(axis=1)
    place = rows.shape[1] - np.ravel(statistic.rank(rows.shape[1], np.count_nonzero(rows, axis=1), values))
    return np.array([[np.sort(row)[k]] for row, k in zip(rows, place, strict=True)])
