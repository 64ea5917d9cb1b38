"""The same formulas run eagerly on torch tensors, wherever those live: the path for accelerators.

Arithmetic, order and random numbers equal the NumPy reference's; division and square root are IEEE on the CPU and on
CUDA, so results agree bit for bit unless a backend flushes subnormals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from rlmerge.errors import CheckpointError, RequestError
from rlmerge.kernels import random
from rlmerge.kernels.dtypes import BFLOAT16, BY_NAME, FLOAT16, MERGEABLE
from rlmerge.kernels.namespace import NumpyNamespace
from rlmerge.kernels.program import Extra, Uniform, is_static
from rlmerge.kernels.random import HIGH_WORD, MIXER
from rlmerge.kernels.rounding import encode
from rlmerge.methods import Statistic
from rlmerge.methods.method import Formula
from rlmerge.options import Options
from rlmerge.planning import Plan, TensorPlan
from rlmerge.recipe import Recipe

from .nonfinite import refuse_overflow
from .rows import Field, on_shape
from .tensors import State, plan_states
from .values import Values, base_values, final_values, for_formula, random_keys


class TorchNamespace:
    """``xp`` on torch tensors; see ``rlmerge.kernels.namespace``."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self._like = torch.zeros((), dtype=dtype, device=device)

    abs = staticmethod(torch.abs)
    sqrt = staticmethod(torch.sqrt)
    isfinite = staticmethod(torch.isfinite)

    def sign(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where(x.isnan(), x, torch.sign(x))

    def minimum(self, x: Any, y: Any) -> torch.Tensor:
        return torch.minimum(self._tensor(x), self._tensor(y))

    def maximum(self, x: Any, y: Any) -> torch.Tensor:
        return torch.maximum(self._tensor(x), self._tensor(y))

    def where(self, condition: torch.Tensor, x: Any, y: Any) -> torch.Tensor:
        return torch.where(condition, self._tensor(x), self._tensor(y))

    def sum(self, x: Any) -> Any:
        total = x[0]
        for row in x[1:]:
            total = total + row
        return total

    def count(self, mask: torch.Tensor) -> torch.Tensor:
        return self.sum(mask.to(self._like.dtype))

    def any(self, mask: torch.Tensor) -> torch.Tensor:
        return mask.any(dim=0)

    def all(self, mask: torch.Tensor) -> torch.Tensor:
        return mask.all(dim=0)

    def max(self, x: torch.Tensor) -> torch.Tensor:
        return x.amax(dim=0)

    def min(self, x: torch.Tensor) -> torch.Tensor:
        return x.amin(dim=0)

    def _tensor(self, x: Any) -> torch.Tensor:
        return x if isinstance(x, torch.Tensor) else torch.full_like(self._like, x)


def random_bits(key: tuple[int, int], count: int, device: torch.device) -> torch.Tensor:
    """Random 32-bit words as int64 [count]; equals ``rlmerge.kernels.random.bits`` from index 0."""
    index = torch.arange(count, dtype=torch.int64, device=device)
    first = _mix((index & 0xFFFFFFFF) ^ key[0])
    return _mix(first ^ ((((index >> 32) * HIGH_WORD) + key[1]) & 0xFFFFFFFF))


def _mix(word: torch.Tensor) -> torch.Tensor:
    for shift, multiplier in MIXER:
        word = word ^ (word >> shift)
        if multiplier is not None:
            # 32 x 32 bits overflow int64's sign, but the lower 32 bits, all that is kept, come out right.
            word = (word * multiplier) & 0xFFFFFFFF
    return word


def merge_on_device(
    recipe: Recipe, base: State | None, experts: Sequence[State], options: Options
) -> dict[str, torch.Tensor]:
    """``merge_state_dicts`` for torch tensors that share one device."""
    states = [*([base] if base is not None else []), *experts]
    devices = sorted({str(value.device) for state in states for value in state.values()})
    if len(devices) > 1:
        hint = "Move them there first, or all of them to the CPU."
        raise RequestError(f"tensors must live on one device, not on {' and '.join(devices)}", hint=hint)
    plan = plan_states(recipe, base is not None, states, options)
    merging = _Device(plan, states)
    merging.scan_model()
    return {name: merging.tensor(tensor) for name, tensor in plan.tensors.items()}


class _Device:
    """One merge on one device, tensor by tensor."""

    def __init__(self, plan: Plan, states: Sequence[State]) -> None:
        self.plan = plan
        self.states = states
        self.device = next(iter(states[0].values())).device
        self.known: dict[str, dict[str, np.ndarray]] = {}

    def scan_model(self) -> None:
        """Statistics over the whole model, and tensor statistics of the stages before them."""
        last = max((i for i, s in enumerate(self.plan.stages) if any(x.over == "model" for x in s)), default=-1)
        merged = [t for t in self.plan.tensors.values() if t.action == "merge" and t.output.numel]
        for stage in self.plan.stages[: last + 1]:
            for statistic in stage:
                if statistic.over == "tensor":
                    for tensor in merged:
                        self._store(tensor)[statistic.name] = self._gather(statistic, [tensor])
                elif merged:
                    self.known.setdefault("", {})[statistic.name] = self._gather(statistic, merged)

    def tensor(self, tensor: TensorPlan) -> torch.Tensor:
        """The merged (or copied) tensor."""
        name = tensor.output.name
        stored = [state[name] for state in self.states]
        if tensor.action == "copy":
            if any(not torch.equal(stored[0], other) for other in stored[1:]):
                raise RequestError(f"{tensor.output.dtype.name} tensors are copied and must be identical", where=name)
            return stored[0].clone()
        if not tensor.output.numel:
            return torch.empty(tensor.output.shape, dtype=_torch_dtype(tensor.output.dtype.name), device=self.device)
        for stage in self.plan.stages:
            for statistic in stage:
                if statistic.over == "tensor" and statistic.name not in self._store(tensor):
                    self._store(tensor)[statistic.name] = self._gather(statistic, [tensor])
        method = self.plan.method
        values = final_values(method, self._so_far(tensor))
        weights, deltas, stack = self._inputs(tensor)
        named = for_formula(method.formula, values)
        if method.whole:
            merged = self._on_numpy(method.formula, named, tensor, tensor.output.shape).to(stack.dtype)
        else:
            ready = self._ready(named, tensor, stack.dtype)
            anchor = weights[0] if tensor.base is not None else None
            merged = method.formula(TorchNamespace(stack.dtype, self.device), anchor, stack, **ready)
        merged = torch.broadcast_to(merged, (1, *stack.shape[1:]))[0]
        if deltas is not None and method.keeps_base(values):
            merged = torch.where((deltas != 0).any(dim=0), merged, weights[0])
        stored = self._encode(merged, tensor).reshape(tensor.output.shape)
        if self.plan.options.on_nonfinite != "keep" and not bool(stored.isfinite().all()):
            refuse_overflow(tensor)
        return stored

    def _store(self, tensor: TensorPlan) -> dict[str, np.ndarray]:
        return self.known.setdefault(tensor.output.name, {})

    def _so_far(self, tensor: TensorPlan) -> Values:
        found = {**self.known.get("", {}), **self._store(tensor)}
        return {**base_values(self.plan.method, tensor.values, tensor.extras), **found}

    def _inputs(self, tensor: TensorPlan) -> tuple[list[torch.Tensor], torch.Tensor | None, torch.Tensor]:
        """Decoded flat weights, deltas [K, n] if there is a base, and what the formula gets."""
        real = torch.float64 if tensor.layout.real == np.float64 else torch.float32
        name = tensor.output.name
        weights = [state[name].detach().reshape(-1).to(real) for state in self.states]
        policy = self.plan.options.on_nonfinite
        if policy != "keep" and not all(bool(w.isfinite().all()) for w in weights):
            if policy == "error":
                raise CheckpointError("holds values that are not finite", where=name, hint="See on_nonfinite.")
            weights = [torch.where(w.isfinite(), w, torch.zeros_like(w)) for w in weights]
        theta = torch.stack(weights[1:] if tensor.base is not None else weights)
        deltas = theta - weights[0] if tensor.base is not None else None
        return weights, deltas, deltas if tensor.layout.deltas and deltas is not None else theta

    def _ready(self, values: Mapping[str, Any], tensor: TensorPlan, dtype: torch.dtype) -> dict[str, Any]:
        """Values as tensors that broadcast against [K, n]."""
        count = tensor.output.numel
        keys = random_keys(self.plan.options.seed, tensor.output.name, len(tensor.experts))
        ready: dict[str, Any] = {}
        for name, value in values.items():
            if isinstance(value, Uniform):
                draws = [random_bits(key, count, self.device) for key in keys[: value.count]]
                ready[name] = torch.stack([(x >> 8).to(dtype) * 2.0**-24 for x in draws])
            elif isinstance(value, Field):
                columns = max(1, tensor.columns)
                field = self._on_numpy(value.function, dict(value.values), tensor, (count // columns, columns))
                ready[name] = field.to(dtype)
            elif isinstance(value, Extra):
                raise RequestError("this method needs inputs that only merging from files provides")
            elif is_static(value):
                ready[name] = value
            else:
                array = torch.as_tensor(np.asarray(value, np.float64), device=self.device).to(dtype)
                if array.ndim == 2:
                    array = array.repeat_interleave(tensor.columns, dim=1)
                ready[name] = array[:, None] if array.ndim == 1 else array
        return ready

    def _on_numpy(self, function: Formula, values: Values, tensor: TensorPlan, shape: tuple[int, ...]) -> torch.Tensor:
        """What a function of whole rows or tensors gives, computed by NumPy as for files: [n] or [K, n]."""
        weights, _, stack = self._inputs(tensor)
        found = on_shape(
            function,
            weights[0].cpu().numpy() if tensor.base is not None else None,
            stack.cpu().numpy(),
            values,
            shape=shape,
            extras={},
            keys=random_keys(self.plan.options.seed, tensor.output.name, len(tensor.experts)),
            start=0,
        )
        return torch.as_tensor(found.reshape(*found.shape[: found.ndim - len(shape)], -1), device=self.device)

    def _gather(self, statistic: Statistic, tensors: Sequence[TensorPlan]) -> np.ndarray:
        skipped = [statistic.skip(self._so_far(t)) if statistic.skip else None for t in tensors]
        if all(value is not None for value in skipped):
            return np.asarray(skipped[0])
        found = [self._rows(statistic, tensor) for tensor in tensors]
        if statistic.reduce == "rows":
            return found[0]
        if statistic.reduce == "count":
            return np.sum([[int(row.sum()) for row in rows] for rows in found], axis=0)
        if statistic.reduce == "sum":
            sums = [[float(row.double().sum()) for row in rows] for rows in found]
            return np.array([math.fsum(column) for column in zip(*sums, strict=True)])
        columns = [torch.cat(parts) for parts in zip(*found, strict=True)]
        assert statistic.rank is not None
        nonzero = np.array([int(column.count_nonzero()) for column in columns])
        numel = sum(t.output.numel for t in tensors)
        ranks = np.asarray(statistic.rank(numel, nonzero, self._so_far(tensors[0])))
        return np.array([_kth(c, int(r), int(z)) for c, r, z in zip(columns, ranks, nonzero, strict=True)])

    def _rows(self, statistic: Statistic, tensor: TensorPlan) -> Any:
        weights, _, stack = self._inputs(tensor)
        values = for_formula(statistic.formula, self._so_far(tensor))
        anchor = weights[0] if tensor.base is not None else None
        if statistic.reduce == "rows":
            shape = (-1, max(1, tensor.columns))
            base = None if anchor is None else anchor.double().cpu().numpy().reshape(shape)
            array = stack.double().cpu().numpy().reshape(len(stack), *shape)
            plain = {k: np.asarray(v)[:, None, None] if np.ndim(v) == 1 else v for k, v in values.items()}
            with np.errstate(all="ignore"):
                return np.asarray(statistic.formula(NumpyNamespace(np.float64), base, array, **plain))
        ready = self._ready(values, tensor, stack.dtype)
        found = statistic.formula(TorchNamespace(stack.dtype, self.device), anchor, stack, **ready)
        return list(found) if isinstance(found, list | tuple) or found.ndim > 1 else [found]

    def _encode(self, merged: torch.Tensor, tensor: TensorPlan) -> torch.Tensor:
        """Rounded to the output type, like ``rlmerge.kernels.rounding.encode``."""
        dtype = tensor.output.dtype
        stochastic = self.plan.options.rounding == "stochastic"
        if stochastic or (merged.dtype == torch.float64 and dtype in (BFLOAT16, FLOAT16)):
            key = random_keys(self.plan.options.seed, tensor.output.name, len(tensor.experts))[-1]
            bits = random.bits(key, 0, merged.numel()) if stochastic else None
            stored = encode(merged.cpu().numpy(), dtype, self.plan.options.rounding, bits)
            made = torch.from_numpy(stored.view(np.int16)).to(self.device)
            return made.view(_torch_dtype(dtype.name))
        return merged.to(_torch_dtype(dtype.name))


def _kth(values: torch.Tensor, rank: int, nonzero: int) -> float:
    if rank <= 0:
        return math.inf
    if rank > nonzero:
        return 0.0
    return float(torch.sort(values, descending=True).values[rank - 1])


def _torch_dtype(name: str) -> torch.dtype:
    assert BY_NAME[name] in MERGEABLE
    return getattr(torch, name)
