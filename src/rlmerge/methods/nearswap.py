"""NearSwap: steps of at most ``t`` from the base towards another model (Alchemonaut's QuartetAnemoi, mergekit)."""

from __future__ import annotations

from typing import Any

from .method import Method, Parameter


def nearswap_formula(xp: Any, base: Any, tau: Any, *, t: Any) -> Any:
    """θ* = θ₀ + min(|τ|, t) · sign τ: small differences are swapped whole, large ones move by t."""
    return base + xp.minimum(xp.maximum(tau[0], -t), t)


NEARSWAP = Method(
    name="nearswap",
    formula=nearswap_formula,
    summary="Take small differences of one expert whole, and of large ones only a step of t.",
    paper="mergekit's nearswap",
    status="second-hand",
    parameters=(Parameter("t", None, "Largest step from the base, in units of the weights.", low=0.0),),
    max_experts=1,
    notes=("mergekit takes differences below 1e-6 in proportion when t is below 1e-6; here t alone limits a step.",),
)

METHODS = (NEARSWAP,)
