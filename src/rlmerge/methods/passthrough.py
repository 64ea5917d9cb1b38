"""One model as it is, or scaled."""

from __future__ import annotations

from typing import Any

from .method import Method, Parameter


def passthrough_formula(xp: Any, base: Any, theta: Any, *, scale: Any) -> Any:
    """θ* = s · θ."""
    return xp.sum(scale * theta)


PASSTHROUGH = Method(
    name="passthrough",
    formula=passthrough_formula,
    summary="Copy one model, with tensors scaled where asked.",
    paper="mergekit's passthrough",
    status="exact",
    parameters=(Parameter("scale", 1.0, "Factor on the weights.", per="expert"),),
    space="weights",
    base="ignored",
    max_experts=1,
    keeps_base=lambda values: False,
)

METHODS = (PASSTHROUGH,)
