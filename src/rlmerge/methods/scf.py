"""SCF-RKL: Lin et al., 2026, arXiv 2602.11717. Fuse only the coordinates that matter most to the rows' divergence.

Published are the outline (reverse KL as importance, a quantile, a binary mask) and three bounds. What the paper leaves
open is a parameter here.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from rlmerge.kernels.namespace import NumpyNamespace

from .complementary import ROW_VALUES, Fusion
from .divergence import row_values
from .measured import MEASURED_ON
from .method import Formula, Method, Parameter, Share, Stages, Statistic


def scf_formula(
    xp: Any,
    base: Any,
    theta: Any,
    *,
    importance: str,
    direction: str,
    order: str,
    threshold: Any,
    rows: Any = None,
    sensitivity: Any = None,
) -> Any:
    """W = W₀ + M ⊙ (W_k − W₀), M = 1[I ≥ its (1 − ρ)-quantile and I > 0]; a fused weight has the expert's very bits."""
    count = ROW_VALUES[importance]
    each = [rows[count * k : count * (k + 1)] if count else () for k in range(len(theta))]
    return Fusion(xp, base, theta, importance, direction, order, each, sensitivity).fuse(list(threshold))[0]


def _fusion(xp: Any, base: Any, theta: Any, values: Mapping[str, Any]) -> Fusion:
    """The fusion with what the statistics found so far."""
    rows = [values.get(f"rows_{k}", ()) for k in range(len(theta))]
    importance, direction, order = (values[name] for name in ("importance", "direction", "order"))
    return Fusion(xp, base, theta, importance, direction, order, rows, values.get("sensitivity"))


def _thresholds(values: Mapping[str, Any], count: int) -> list[Any]:
    return [values[f"threshold_{k}"][0] for k in range(count)]


def _asking(formula: Formula, importance: str, rows: int, thresholds: int, *more: str) -> Formula:
    """``formula`` with a signature that names the choices and what the statistics before it found."""
    found = [f"rows_{k}" for k in range(rows) if ROW_VALUES[importance]]
    found += [f"threshold_{k}" for k in range(thresholds)]
    found += ["sensitivity"] if importance == "fisher" else []
    kind = inspect.Parameter
    keywords = [kind(name, kind.KEYWORD_ONLY) for name in ("importance", "direction", "order", *found, *more)]
    tile = [kind(name, kind.POSITIONAL_OR_KEYWORD) for name in ("xp", "base", "theta")]
    formula.__signature__ = inspect.Signature([*tile, *keywords])  # type: ignore[attr-defined]
    return formula


# The makers of formulas are cached: a compiled kernel is found again by the identity of its formula.
@functools.cache
def _rows(k: int, before: int, importance: str) -> Formula:
    """Row values of expert ``k`` beside the base, into which ``before`` experts have been fused."""

    def formula(xp: Any, base: Any, theta: Any, *, wide: bool, divergence: str, **values: Any) -> Any:
        reference = base
        if before:
            # In the arithmetic of the merge, so that its masks are met to the last bit.
            real = np.float64 if wide else np.float32
            known = {name: x.astype(real) if isinstance(x, np.ndarray) else x for name, x in values.items()}
            fusion = _fusion(NumpyNamespace(real), base.astype(real), theta.astype(real), known)
            reference = fusion.fuse(_thresholds(known, before))[0].astype(np.float64)
        return row_values(reference, theta[k], importance, divergence, values["direction"])

    return _asking(formula, importance, before, before, "wide", "divergence")


@functools.cache
def _importance(k: int, importance: str) -> Formula:
    """Importance of expert ``k`` beside the base, into which the experts before it have been fused."""

    def formula(xp: Any, base: Any, theta: Any, **values: Any) -> Any:
        fusion = _fusion(xp, base, theta, values)
        return fusion.importance_of(k, fusion.fuse(_thresholds(values, k))[0])

    return _asking(formula, importance, k + 1, k)


@functools.cache
def _largest(experts: int, importance: str) -> Formula:
    def formula(xp: Any, base: Any, theta: Any, **values: Any) -> Any:
        return _fusion(xp, base, theta, values).largest()[0]

    return _asking(formula, importance, experts, 0)


@functools.cache
def _taken(experts: int, thresholds: int, importance: str) -> Formula:
    def formula(xp: Any, base: Any, theta: Any, **values: Any) -> Any:
        return _fusion(xp, base, theta, values).fuse(_thresholds(values, thresholds))[1]

    return _asking(formula, importance, experts, thresholds)


@functools.cache
def _squares(experts: int, thresholds: int, importance: str) -> Formula:
    def formula(xp: Any, base: Any, theta: Any, **values: Any) -> Any:
        moved = _fusion(xp, base, theta, values).fuse(_thresholds(values, thresholds))[0] - base
        return [moved * moved, base * base]

    return _asking(formula, importance, experts, thresholds)


def _rank(numel: int, nonzero: np.ndarray, values: Mapping[str, Any]) -> np.ndarray:
    """Rank from the top of the smallest entry that is at least the linearly interpolated (1 − ρ)-quantile.

    The position is exact, since 0.1 is no binary fraction. With ρ = 0 nothing is kept, not even the largest.
    """
    share = Fraction(str(float(values["rho"])))
    rank = numel - math.ceil((1 - share) * (numel - 1)) if share else 0
    return np.full(nonzero.shape, rank, np.int64)


def _statistics(experts: int, *, importance: str, order: str, **_: Any) -> Stages:
    def rows(k: int, before: int) -> tuple[Statistic, ...]:
        return (Statistic(f"rows_{k}", _rows(k, before, importance), "rows"),) if ROW_VALUES[importance] else ()

    def threshold(k: int, formula: Formula) -> tuple[Statistic, ...]:
        return (Statistic(f"threshold_{k}", formula, "kth", rank=_rank, uses=("rho",)),)

    if order == "argmax":
        stages = [tuple(s for k in range(experts) for s in rows(k, 0)), threshold(0, _largest(experts, importance))]
    else:
        stages = [s for k in range(experts) for s in (rows(k, k), threshold(k, _importance(k, importance)))]
    asked = experts, 1 if order == "argmax" else experts, importance
    outcome = (Statistic("taken", _taken(*asked), "count"), Statistic("squares", _squares(*asked), "sum"))
    return tuple(stage for stage in (*stages, outcome) if stage)


def _derive(values: dict[str, Any]) -> dict[str, Any]:
    experts = range(int(values["experts"]))
    found = [values[name] for k in experts if (name := f"threshold_{k}") in values]
    rows = [values[name] for k in experts if (name := f"rows_{k}") in values]
    return {"threshold": np.concatenate(found), "rows": np.concatenate(rows) if rows else None}


def _report(values: Mapping[str, Any]) -> dict[str, Share]:
    taken, numel = [float(count) for count in values["taken"]], float(values["numel"])
    moved, base = (float(total) for total in values["squares"])
    return {
        "untouched coordinates": Share(numel - sum(taken), numel),
        **{f"fused from {{{k}}}": Share(count, numel) for k, count in enumerate(taken)},
        "‖MΔ‖/‖W₀‖, a bound on the spectral shift": Share(moved, base, 0.5),
    }


def _warn(values: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    if values["importance"] == "fisher" and values["sensitivity"] is None:
        found.append("no sensitivity was measured here, so importance is ½Δ²")
    if not any(values["taken"]) and values["rho"] > 0:
        found.append("no change has any importance, so the base is kept")
    return found


SCF_RKL = Method(
    name="scf_rkl",
    formula=scf_formula,
    summary="Take over the few weights whose change matters most to the divergence of their row.",
    paper="SCF-RKL, arXiv 2602.11717",
    status="reconstruction",
    parameters=(
        Parameter("rho", 0.1, "Share of a tensor's weights that are taken over.", low=0.0, high=1.0),
        Parameter(
            "importance",
            "row",
            "|Δ| times the KL divergence of the row; the entry's own |q log(q/p)|; or ½FΔ² by measured sensitivity.",
            choices=("row", "element", "fisher"),
        ),
        Parameter(
            "direction",
            "reverse",
            "KL(base‖expert), or KL(expert‖base); for small changes both are equal.",
            choices=("reverse", "forward"),
        ),
        Parameter(
            "divergence",
            "variance",
            "The row's KL as ½ Var_q(Δ), which holds for small changes, or exactly.",
            choices=("variance", "exact"),
        ),
        Parameter(
            "order",
            "sequential",
            "Several experts: one after the other into the result so far, or the most important per weight.",
            choices=("sequential", "argmax"),
        ),
        MEASURED_ON,
    ),
    statistics=_statistics,
    derive=_derive,
    inputs=("sensitivity",),
    needs_inputs=lambda static: static["importance"] == "fisher",
    compiled=lambda values: values["importance"] != "element",
    space="weights",
    warn=_warn,
    report=_report,
    notes=(
        "A fork of mergekit has scf for another method, Selective Coherence Fusion.",
        "A reconstruction: published are the outline and the bounds. Each row of weights is read as logits.",
        "reverse and forward agree up to O(Δ³), so for RL-sized changes their masks coincide; ½ Var_q(Δ) is the same "
        "for both. Divergences are computed in float64 without cancellation: in plain float32 they are noise.",
        "Only importance: fisher speaks of the divergence of the model's outputs; the others compare rows of weights.",
        "The quantile is exact and over the tensor. Equal importances at it are all kept; zero importance never is, so "
        "fewer than rho are taken where fewer changed. A row of one entry, or one moved as a whole, has no divergence.",
        "Each run prints the share of untouched weights and ‖MΔ‖/‖W₀‖, which bounds the normalised spectral shift of "
        "every tensor (Mirsky). The shift itself and rotations of subspaces (Wedin) need singular values, which "
        "`rlmerge inspect` measures.",
        "sequential takes up to rho from each expert, and a later expert may replace what an earlier one gave; argmax "
        "takes rho in all.",
    ),
)

METHODS = (SCF_RKL,)
