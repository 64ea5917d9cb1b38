"""Steps that several methods are composed of; each is one formula over a tile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .method import Parameter, Statistic

WEIGHT = Parameter("weight", 1.0, "Weight of the expert.", per="expert")
LAMBDA = Parameter("lambda", 1.0, "Coefficient of the merged task vector.", argument="lam")


RESTORE = Parameter(
    "rescale",
    "none",
    "What stays is left alone, or brought back to the L1 norm of the tensor's task vector.",
    choices=("none", "l1"),
)


def density(help: str) -> Parameter:
    """A ``density`` parameter per expert, in [0, 1]."""
    return Parameter("density", 1.0, help, per="expert", low=0.0, high=1.0)


def normalize(default: bool) -> Parameter:
    """The ``normalize`` switch."""
    return Parameter("normalize", default, "Divide by the sum of the weights that take part.")


def trim(xp: Any, tau: Any, threshold: Any) -> Any:
    """Keep magnitudes of ``threshold`` or more, so equal ones all stay: TIES step 1 (arXiv 2306.01708, §4)."""
    return xp.where(xp.abs(tau) >= threshold, tau, 0.0)


def magnitude(xp: Any, base: Any, tau: Any) -> Any:
    """|τ| per expert."""
    return xp.abs(tau)


def top_share(numel: int | np.ndarray, nonzero: np.ndarray, values: Mapping[str, Any]) -> np.ndarray:
    """Rank of the smallest entry that a top-``density`` trim keeps: at least one entry unless the density is 0."""
    share = np.asarray(values["density"], np.float64)
    return np.where(share > 0, np.maximum(1, np.floor(share * numel)), 0).astype(np.int64)


def keep_all(values: Mapping[str, Any]) -> np.ndarray | None:
    """Thresholds of 0 without a scan when every density is 1."""
    share = np.asarray(values["density"])
    return np.zeros(share.shape) if np.all(share >= 1) else None


def threshold(over: str) -> Statistic:
    """The magnitude threshold of a top-``density`` trim per expert, over the tensor or the whole model."""
    return Statistic("threshold", magnitude, "kth", over, top_share, keep_all, ("density",))  # type: ignore[arg-type]


def elect_sign(xp: Any, weighted: Any) -> Any:
    """Elected sign per coordinate, +1 or −1: that of the weighted sum, 0 counting as + (TIES step 2)."""
    return xp.where(xp.sum(weighted) >= 0, 1.0, -1.0)


def elected_sum(xp: Any, tau: Any, weight: Any, normalize: bool, sign: Any = None) -> Any:
    """Weighted sum of the entries whose weighted sign is the elected one; ``normalize``: their mean (TIES step 3).

    ``sign`` is the elected sign where something else than the weighted sum elects it.
    """
    weighted = weight * tau
    agree = weighted * (elect_sign(xp, weighted) if sign is None else sign) > 0
    total = xp.sum(xp.where(agree, weighted, 0.0))
    if not normalize:
        return total
    share = xp.sum(xp.where(agree, weight, 0.0))
    return total / xp.where(share == 0, 1.0, share)


def weighted_sum(xp: Any, tau: Any, weight: Any, normalize: bool) -> Any:
    """Σ w_k τ_k, divided by Σ w_k when ``normalize``."""
    total = xp.sum(weight * tau)
    return total / xp.sum(weight) if normalize else total


def weights_do_not_cancel(values: Mapping[str, Any]) -> list[str]:
    """A problem when ``normalize`` would divide by zero."""
    if values["normalize"] and abs(float(np.sum(values["weight"]))) < 1e-8:
        return ["the weights add up to 0, so 'normalize' would divide by zero; set normalize: false or other weights"]
    return []


def norms(xp: Any, tau: Any, kept: Any) -> Any:
    """Summands of the L1 norms before and after entries were dropped, 2K rows; ``l1_scale`` takes their sums."""
    return [*xp.abs(tau), *xp.abs(kept)]


def l1_scale(values: dict[str, Any]) -> dict[str, Any]:
    """``scale`` [K] from the statistic ``norms`` when ``rescale`` asks for the L1 norm, else None."""
    if values["rescale"] != "l1":
        return {"scale": None}
    before, after = np.split(np.asarray(values["norms"], np.float64), 2)
    return {"scale": scale_to_l1(before, after)}


def scaled(kept: Any, scale: Any) -> Any:
    """``kept`` times ``scale``, if there is one."""
    return kept if scale is None else scale * kept


def scale_to_l1(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Factors [K] that bring an L1 norm of ``after`` back to ``before``; 1 where either is 0."""
    usable = (before > 0) & (after > 0)
    return np.where(usable, before / np.where(usable, after, 1.0), 1.0)
