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
from rlmerge.kernels.program import Uniform, numpy_values
from rlmerge.methods.ram import is_active
from rlmerge_lab.scaling import article
from rlmerge_lab.scaling.generator import Floats

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
        draws: dict[str, Floats] = {}
        if self.random:
            values["uniform"], draws["uniform"] = Uniform(len(tau)), generator.random(tau.shape)
        merged = _run(methods.get(self.method).formula, tau, values, draws)
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
    threshold = np.asarray(values["threshold"])[:, None]
    return is_active(_XP, tau, values["active"], values["epsilon"], threshold)


def _values(merger: Merger, tau: Floats) -> dict[str, Any]:
    """Parameters, statistics and derived values of a merger on ``tau``, as the engine has them: [K] for experts."""
    method = methods.get(merger.method)
    experts, numel = tau.shape
    values: dict[str, Any] = {p.argument: p.default for p in method.parameters} | dict(merger.settings)
    values |= {p.argument: np.full(experts, values[p.argument]) for p in method.parameters if p.per == "expert"}
    values |= {"experts": float(experts), "numel": numel}
    static = {p.argument: values[p.argument] for p in method.parameters if p.is_static}
    for stage in method.statistics(experts, **static):
        values |= {statistic.name: _statistic(statistic, tau, values) for statistic in stage}
    return values | (method.derive(values) if method.derive else {})


def _run(formula: methods.Formula, tau: Floats, values: Mapping[str, Any], draws: Mapping[str, Floats]) -> Any:
    """A formula on ``tau`` with a base of zero."""
    numel = tau.shape[1]
    shaped = numpy_values(methods.arguments(formula, values), np.dtype(np.float64), 0, numel, numel, draws)
    return formula(_XP, np.zeros(numel), tau, **shaped)


def _statistic(statistic: methods.Statistic, tau: Floats, values: Mapping[str, Any]) -> Any:
    """The statistic [K] by its definition: the r-th largest of each row, or its sum or count, in memory."""
    skipped = statistic.skip(values) if statistic.skip else None
    if skipped is not None:
        return skipped
    rows = np.stack(list(_run(statistic.formula, tau, values, {})))
    if statistic.rank is None:
        return rows.sum(axis=1)
    place = rows.shape[1] - np.ravel(statistic.rank(rows.shape[1], np.count_nonzero(rows, axis=1), values))
    return np.array([np.sort(row)[k] for row, k in zip(rows, place, strict=True)])
