"""The tile function that merges one tensor of a plan."""

from __future__ import annotations

from rlmerge.planning import Plan, TensorPlan

from .compute import Merger
from .values import Values, for_formula, random_keys


def make_merger(plan: Plan, tensor: TensorPlan, values: Values) -> Merger:
    """A ``Merger`` of ``tensor`` for its final ``values``, statistics included."""
    method, options = plan.method, plan.options
    return Merger(
        method.formula,
        tensor.layout,
        for_formula(method.formula, values),
        random_keys(options.seed, tensor.output.name, len(tensor.experts)),
        out=tensor.output.dtype,
        rounding=options.rounding,
        keeps_base=tensor.base is not None and method.keeps_base(values),
        zero=options.on_nonfinite == "zero",
        columns=tensor.columns,
    )
