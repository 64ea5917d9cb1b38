"""Means on the sphere: the Karcher (Riemannian) mean of directions, and the average direction it starts from.

Karcher, 1977, "Riemannian center of mass and mollifier smoothing", CPAM 30. Everything stays in the span of the K
vectors, so all iterations run on their K × K matrix of scalar products in float64; a merge is one linear combination.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rlmerge.kernels.matrix import product

from .gram import form, inner, matrix, products
from .method import Method, Parameter, Stages, Statistic
from .parts import WEIGHT

CANCELLED = 1e-8
"""Length below which the average of unit vectors has no direction."""


def mean_direction(
    cosines: np.ndarray, weight: np.ndarray, steps: int, tolerance: float, cancelled: float = CANCELLED
) -> np.ndarray | None:
    """Coefficients [K] of the unit vectors in their mean on the sphere; None where their average has no direction.

    ``cosines`` [K, K]. Starts at the normalised average, then follows m ← exp_m(Σ w_k log_m u_k) up to ``steps`` times,
    until a step is shorter than ``tolerance``. ``weight`` [K].
    """
    length = np.sqrt(max(0.0, form(weight, cosines)))
    if length <= cancelled:
        return None
    mean = weight / length
    for _ in range(steps):
        toward = np.clip(product(cosines, mean[:, None])[:, 0], -1.0, 1.0)
        angle = np.arccos(toward)
        stretch = 1 / np.sinc(np.where(angle < np.pi, angle, 0.0) / np.pi) * (angle < np.pi)
        pull = weight * stretch
        step = pull - inner(pull, toward) * mean
        size = np.sqrt(max(0.0, form(step, cosines)))
        if size < tolerance:
            break
        mean = np.cos(size) * mean + np.sinc(size / np.pi) * step
        mean = mean / np.sqrt(form(mean, cosines))
    return mean


def combination(gram: np.ndarray, weight: np.ndarray, *direction: Any) -> np.ndarray:
    """Coefficients [K] of vectors with scalar products ``gram`` in the mean direction times the mean length.

    The plain weighted average where directions cancel. Vectors without length count in the mean length alone.
    ``direction`` are the further arguments of ``mean_direction``.
    """
    norms = np.sqrt(np.diag(gram))
    usable = norms > 0
    unit = gram[np.ix_(usable, usable)] / np.outer(norms[usable], norms[usable])
    found = mean_direction(np.clip(unit, -1.0, 1.0), weight[usable], *direction)
    if found is None:
        return weight
    coefficients = np.zeros(len(gram))
    coefficients[usable] = inner(weight, norms) * found / norms[usable]
    return coefficients


def karcher_formula(xp: Any, base: Any, theta: Any, *, coefficient: Any) -> Any:
    """θ* = Σ c_k θ_k."""
    return xp.sum(coefficient * theta)


def _gram(xp: Any, base: Any, theta: Any) -> Any:
    return products(theta)


def _derive(values: dict[str, Any]) -> dict[str, Any]:
    experts = int(values["experts"])
    equal = np.full(experts, 1 / experts)
    gram = matrix(values["gram"], experts)
    return {"coefficient": combination(gram, equal, int(values["max_iter"]), float(values["tol"]))}


KARCHER = Method(
    name="karcher",
    formula=karcher_formula,
    summary="Mean direction of the experts on the sphere, at their mean length.",
    paper="Karcher, CPAM 30, 1977; parameters as in mergekit",
    status="exact",
    looks_at="angles",
    parameters=(
        Parameter("max_iter", 10.0, "Most steps towards the mean.", low=0.0),
        Parameter("tol", 1e-5, "Stop when a step is shorter than this angle.", low=0.0),
    ),
    statistics=lambda experts, **_: ((Statistic("gram", _gram, "sum"),),),
    derive=_derive,
    space="weights",
    base="ignored",
    keeps_base=lambda values: False,
    notes=(
        "Iterations run on scalar products in float64; mergekit iterates on tensors in the models' own precision.",
        "Between fine-tunes of one base angles are so small that this is the average; multislerp with a base_model "
        "works on task vectors.",
    ),
)


def multislerp_formula(xp: Any, base: Any, vectors: Any, *, coefficient: Any) -> Any:
    """θ* = Σ c_k θ_k; with a base θ₀ + Σ c_k τ_k."""
    if base is None:
        return xp.sum(coefficient * vectors)
    return base + xp.sum(coefficient * (vectors - base))


def _task_gram(xp: Any, base: Any, vectors: Any) -> Any:
    return products(vectors if base is None else vectors - base)


def _weights(values: Mapping[str, Any]) -> np.ndarray:
    weight = np.asarray(values["weight"], np.float64)
    return weight / weight.sum() if values["normalize_weights"] else weight


def _multislerp_derive(values: dict[str, Any]) -> dict[str, Any]:
    gram = matrix(values["gram"], int(values["experts"]))
    return {"coefficient": combination(gram, _weights(values), 0, 0.0, float(values["eps"]))}


def _multislerp_check(values: Mapping[str, Any]) -> list[str]:
    if values["normalize_weights"] and abs(float(np.sum(values["weight"]))) < 1e-8:
        return ["the weights add up to 0 and cannot be normalised; set normalize_weights: false or other weights"]
    return []


def _multislerp_statistics(experts: int, **_: Any) -> Stages:
    return ((Statistic("gram", _task_gram, "sum"),),)


MULTISLERP = Method(
    name="multislerp",
    formula=multislerp_formula,
    summary="Average direction of the experts, at their average length.",
    paper="mergekit's multislerp",
    status="second-hand",
    looks_at="angles",
    parameters=(
        WEIGHT,
        Parameter("normalize_weights", True, "Divide the weights by their sum."),
        Parameter("eps", 1e-8, "Average the vectors when that of their directions is no longer than this.", low=0.0),
    ),
    statistics=_multislerp_statistics,
    derive=_multislerp_derive,
    check=_multislerp_check,
    space="weights",
    base="optional",
    notes=("The mean direction in the sense of its curvature is karcher's.",),
)

METHODS = (KARCHER, MULTISLERP)
