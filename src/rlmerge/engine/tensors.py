"""Merging in memory: state dicts of NumPy arrays or torch tensors in, the same out."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rlmerge.checkpoint import ArraySource, Checkpoint, Source
from rlmerge.errors import RequestError
from rlmerge.kernels.dtypes import ALL, BFLOAT16, BY_NAME, DType
from rlmerge.options import Options
from rlmerge.planning import Plan, TensorPlan
from rlmerge.planning.make import plan_models
from rlmerge.planning.sizing import sizing
from rlmerge.progress import Quiet
from rlmerge.recipe import Recipe, recipe_from_flags

from .mergers import make_merger
from .nonfinite import refuse_nonfinite, refuse_overflow
from .pieces import Numbers
from .scan import Scan
from .stream import Workers
from .tiles import Tile, cut

State = Mapping[str, Any]


def merge_state_dicts(
    base: State | None,
    experts: Sequence[State],
    method: str = "task_arithmetic",
    *,
    seed: int = 0,
    dtype: str | None = None,
    out_dtype: str | None = None,
    rounding: Literal["nearest", "stochastic"] = "nearest",
    on_nonfinite: Literal["error", "keep", "zero"] = "error",
    workers: int | None = None,
    **parameters: Any,
) -> dict[str, Any]:
    """Merge state dicts and return a new one with the base's names and shapes.

    Values are NumPy arrays (float16, float32, float64, ``ml_dtypes`` bfloat16, integers) or torch tensors, all of one
    kind; torch tensors stay on their device, and those on the CPU give the same bits as files would. ``parameters``
    are the method's (``lam`` may stand for ``lambda``); a sequence gives one value per expert. Raises RequestError for
    wrong parameters and mismatched tensors, and warns as a plan of files does.
    """
    given = {("lambda" if name == "lam" else name): value for name, value in parameters.items()}
    names = [f"expert {k}" for k in range(len(experts))]
    recipe = recipe_from_flags(method, "base" if base is not None else None, names, given)
    options = Options(
        seed=seed,
        dtype=dtype,
        out_dtype=out_dtype,
        rounding=rounding,
        on_nonfinite=on_nonfinite,
        workers=workers,
        cache=False,
    )
    states = [*([base] if base is not None else []), *experts]
    if _on_accelerator(states):
        from .on_torch import merge_on_device

        return merge_on_device(recipe, base, experts, options)
    plan = _plan(recipe, base is not None, [_arrays(k, state) for k, state in enumerate(states)], options)
    like = states[0]
    with Workers(options.threads) as workers_:
        return {name: _restore(array, tensor, like[name]) for name, tensor, array in _merge_all(plan, workers_)}


def plan_states(recipe: Recipe, has_base: bool, states: Sequence[State], options: Options) -> Plan:
    """The plan of a merge in memory, from the shapes and types of ``states`` alone, the base's first."""
    models = [_described(k, {name: describe(value) for name, value in s.items()}) for k, s in enumerate(states)]
    return _plan(recipe, has_base, models, options)


def _plan(recipe: Recipe, has_base: bool, models: Sequence[Checkpoint], options: Options) -> Plan:
    first = models[0] if has_base else None
    plan = plan_models(recipe, first, tuple(models[1:] if has_base else models), None, options)
    for text in plan.warnings:
        warnings.warn(text, stacklevel=3)
    return plan


def _described(index: int, tensors: Mapping[str, tuple[tuple[int, ...], DType]]) -> Checkpoint:
    """A checkpoint that says what a state dict holds; its values are not there."""
    label = f"state dict {index}"
    sources = {
        name: ArraySource(name, dtype, np.broadcast_to(np.zeros((), dtype.storage), shape), label)
        for name, (shape, dtype) in tensors.items()
    }
    return _checkpoint(label, sources)


def _checkpoint(label: str, sources: Mapping[str, Source]) -> Checkpoint:
    return Checkpoint(label, Path(label), None, sources, None, (), (), "memory", Path(label))


def _merge_all(plan: Plan, workers: Workers) -> Any:
    size = sizing(plan)
    scan = Scan(plan, workers, size.tile, Quiet(), {})
    scan.scan_model()
    for name, tensor in plan.tensors.items():
        yield name, tensor, _merge_tensor(plan, tensor, scan, workers, size.tile)


def _merge_tensor(plan: Plan, tensor: TensorPlan, scan: Scan, workers: Workers, tile_size: int) -> np.ndarray:
    if tensor.action == "copy":
        stored = [info.read() for info in tensor.sources]
        for info, other in zip(tensor.sources[1:], stored[1:], strict=True):
            if not np.array_equal(stored[0], other):
                raise RequestError(f"{info.dtype.name} tensors are copied and must be identical", where=info.name)
        return stored[0].copy()
    out = np.empty(tensor.output.numel, tensor.output.dtype.storage)
    if not out.size:
        return out
    scan.scan_tensor(tensor)
    options = plan.options
    merger = make_merger(plan, tensor, scan.values(tensor))

    def work(tile: Tile, inputs: Sequence[np.ndarray]) -> Numbers:
        return merger(tile, inputs, out[tile.start : tile.stop])

    size = tensor.output.numel if plan.method.whole else tile_size
    for tile, found in workers.map(cut(tensor, size, by_rows=plan.method.rows_field is not None), work):
        if found.nonfinite_in and options.on_nonfinite == "error":
            refuse_nonfinite(tile)
        if found.nonfinite_out and options.on_nonfinite != "keep":
            refuse_overflow(tensor)
    return out


def _arrays(index: int, state: State) -> Checkpoint:
    """A checkpoint whose tensors are the arrays of ``state``."""
    label = f"state dict {index}"
    sources = {name: ArraySource(name, dtype, array, label) for name, (array, dtype) in _stored_all(state).items()}
    return _checkpoint(label, sources)


def _stored_all(state: State) -> dict[str, tuple[np.ndarray, DType]]:
    return {name: _stored(name, value) for name, value in state.items()}


def is_torch(value: Any) -> bool:
    """Whether ``value`` is a torch tensor, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def describe(tensor: Any) -> tuple[tuple[int, ...], DType]:
    """Shape and element type of a torch tensor."""
    name = str(tensor.dtype).removeprefix("torch.")
    if name not in BY_NAME:
        raise RequestError(f"tensors of {tensor.dtype} cannot be merged or copied")
    return tuple(tensor.shape), BY_NAME[name]


def _on_accelerator(states: Sequence[State]) -> bool:
    return any(is_torch(value) and value.device.type != "cpu" for state in states for value in state.values())


def _stored(name: str, value: Any) -> tuple[np.ndarray, DType]:
    """A storage array over the memory of ``value`` where possible, and its element type."""
    if is_torch(value):
        torch = sys.modules["torch"]
        tensor = value.detach().contiguous()
        if tensor.dtype == torch.bfloat16:
            return tensor.view(torch.int16).numpy().view(np.uint16), BFLOAT16
        array = tensor.numpy()
    else:
        array = np.asarray(value)
        if array.dtype.name == BFLOAT16.name:
            return array.view(np.uint16), BFLOAT16
    for dtype in ALL:
        if dtype is not BFLOAT16 and dtype.storage == array.dtype:
            return array, dtype
    raise RequestError(f"arrays of {array.dtype} cannot be merged or copied", where=name)


def _restore(array: np.ndarray, tensor: TensorPlan, like: Any) -> Any:
    """``array`` in the kind of container that ``like`` is."""
    shaped = array.reshape(tensor.output.shape)
    bfloat16 = tensor.output.dtype is BFLOAT16
    if is_torch(like):
        torch = sys.modules["torch"]
        made = torch.from_numpy(shaped.view(np.int16) if bfloat16 else shaped)
        return made.view(torch.bfloat16) if bfloat16 else made
    if not bfloat16:
        return shaped
    if np.asarray(like).dtype.name == BFLOAT16.name:
        return shaped.view(np.asarray(like).dtype)
    raise RequestError("NumPy has no bfloat16", where=tensor.output.name, hint="Set out_dtype='float32'.")
