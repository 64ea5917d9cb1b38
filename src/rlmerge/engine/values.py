"""The values a formula is called with: parameters, statistics, what the method derives, and random streams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlmerge.checkpoint import Source
from rlmerge.kernels.program import Extra, Uniform
from rlmerge.kernels.random import stream_key
from rlmerge.methods import Method, arguments
from rlmerge.methods.method import Formula

from .rows import Field

Values = dict[str, Any]


def base_values(method: Method, values: Mapping[str, Any], extras: Mapping[str, tuple[Source, ...]]) -> Values:
    """Recipe values plus markers for what is read or drawn per coordinate."""
    count = int(values["experts"])
    ready: Values = {**values, "uniform": Uniform(count)}
    for name in method.inputs:
        infos = extras.get(name)
        ready[name] = None if infos is None else Extra(tuple(info.dtype for info in infos))
    if method.rows_field is not None:
        ready["field"] = Field(method.rows_field, arguments(method.rows_field, ready), count)
    return ready


def final_values(method: Method, values: Values) -> Values:
    """``values`` with statistics, completed by what the method derives from them."""
    return {**values, **(method.derive(dict(values)) if method.derive else {})}


def for_formula(formula: Formula, values: Mapping[str, Any]) -> Values:
    """The values ``formula`` names."""
    return arguments(formula, values)


def random_keys(seed: int, tensor: str, experts: int) -> list[tuple[int, int]]:
    """One key per expert's stream and one for stochastic rounding, from seed, purpose, expert and tensor name."""
    streams = [stream_key(seed, "uniform", k, tensor) for k in range(experts)]
    return [*streams, stream_key(seed, "rounding", tensor)]
