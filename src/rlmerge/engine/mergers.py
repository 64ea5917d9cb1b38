"""The tile function that merges one tensor of a plan."""

from __future__ import annotations

from rlmerge.planning import Plan, TensorPlan

from .compute import Merger
from .pieces import Rounder
from .values import Values, for_formula, random_keys
from .whole import WholeMerger


def make_merger(plan: Plan, tensor: TensorPlan, values: Values) -> Merger | WholeMerger:
    """What merges tiles of ``tensor`` for its final ``values``, statistics included; of a whole method its one tile."""
    method, options = plan.method, plan.options
    keys = random_keys(options.seed, tensor.output.name, len(tensor.experts))
    keeps_base = tensor.base is not None and method.keeps_base(values)
    zero = options.on_nonfinite == "zero"
    ready = for_formula(method.formula, values)
    if method.whole:
        rounder = Rounder(tensor.output.dtype, options.rounding, keeps_base, keys[-1])
        return WholeMerger(method.formula, tensor.layout, ready, keys, rounder=rounder, zero=zero)
    return Merger(
        method.formula,
        tensor.layout,
        ready,
        keys,
        out=tensor.output.dtype,
        rounding=options.rounding,
        keeps_base=keeps_base,
        zero=zero,
        columns=tensor.columns,
    )
