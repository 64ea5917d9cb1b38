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
from rlmerge.kernels.dtypes import ALL, BFLOAT16, BY_NAME, MERGEABLE, DType
from rlmerge.options import Options
from rlmerge.progress import Quiet
from rlmerge.recipe import Recipe, recipe_from_flags

from .backend import Backend
from .execute import Executor, Lane, Task
from .job import Job
from .make import plan_models
from .plan import Plan
from .sinks import StateSink
from .statistics import Statistics
from .stream import Workers

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
    memory: int | str | None = None,
    **parameters: Any,
) -> dict[str, Any]:
    """Merge state dicts and return a new one with the base's names and shapes.

    Values are NumPy arrays (float16, float32, float64, ``ml_dtypes`` bfloat16, integers) or torch tensors, all of one
    kind; torch tensors stay on their device, and those on the CPU give the same bits as files would. ``memory`` is the
    budget beside the result, in bytes or as text such as "2GB". ``parameters`` are the method's (``lam`` may stand for
    ``lambda``); a sequence gives one value per expert. Names of one storage are merged once and stay one storage.
    Raises RequestError for wrong parameters and mismatched tensors, and warns as a plan of files does.
    """
    _check_states(base, experts)
    given = {("lambda" if name == "lam" else name): value for name, value in parameters.items()}
    names = [f"expert {k}" for k in range(len(experts))]
    recipe = recipe_from_flags(method, "base" if base is not None else None, names, given)
    chosen: dict[str, Any] = {"memory": memory} if memory is not None else {}
    options = Options.of(
        seed=seed,
        dtype=dtype,
        out_dtype=out_dtype,
        rounding=rounding,
        on_nonfinite=on_nonfinite,
        workers=workers,
        cache=False,
        **chosen,
    )
    states = [*([base] if base is not None else []), *experts]
    return merge_states(recipe, base is not None, states, options, _device_backend(states))


def merge_states(
    recipe: Recipe, has_base: bool, states: Sequence[State], options: Options, backend: Backend | None = None
) -> dict[str, Any]:
    """``merge_state_dicts`` of a recipe whose models are ``states``, the base's first, run by ``backend``."""
    on_device = backend is not None and backend.name == "torch"
    twins = _twins(states)
    models = [_model(k, {n: v for n, v in s.items() if n not in twins}, on_device) for k, s in enumerate(states)]
    first = models[0] if has_base else None
    plan = plan_models(recipe, first, tuple(models[1:] if has_base else models), options)
    for text in plan.warnings:
        warnings.warn(text, stacklevel=3)
    merged = _merge(plan, backend, states[0])
    return {name: merged[twins.get(name, name)] for name in states[0] if twins.get(name, name) in merged}


def _merge(plan: Plan, backend: Backend | None, like: State) -> dict[str, Any]:
    jobs = list(plan.jobs.values())
    on_device = backend is not None and backend.name == "torch"
    sink = StateSink(
        _on_device(like) if on_device else lambda job: np.empty(job.output.numel, job.output.dtype.storage)
    )
    with Workers(plan.sizing.threads, backend) as workers:
        statistics = Statistics(jobs, workers, plan.options, plan.sizing, Quiet())
        statistics.scan_model()
        lane = Lane(statistics, sink)
        Executor([lane], workers, plan.sizing, plan.options, Quiet()).run(Task((job,)) for job in jobs)
    return {job.name: _restore(sink.state[job.name], job, like[job.name]) for job in jobs}


def _on_device(like: State) -> Any:
    """Allocates merged tensors where the models lie."""
    torch = sys.modules["torch"]
    device = next(iter(like.values())).device

    def make(job: Job) -> Any:
        return torch.empty(job.output.numel, dtype=getattr(torch, job.output.dtype.name), device=device)

    return make


def _model(index: int, state: State, on_device: bool) -> Checkpoint:
    """A checkpoint whose tensors are the values of ``state``."""
    label = f"state dict {index}"
    sources: dict[str, Source] = {}
    for name, value in state.items():
        if on_device:
            from .on_torch import TorchSource

            _torch_dtype(name, value)
            sources[name] = TorchSource(name, value, label)
        else:
            array, dtype = _stored(name, value)
            sources[name] = ArraySource(name, dtype, array, label)
    return Checkpoint(label, Path(label), None, sources, None, (), (), "memory", Path(label))


def _check_states(base: object, experts: object) -> None:
    if isinstance(experts, Mapping) or not isinstance(experts, Sequence):
        raise RequestError("experts must be a sequence of state dicts", hint="Pass [expert] for one expert.")
    for label, state in (("base", base), *((f"expert {k}", expert) for k, expert in enumerate(experts))):
        if state is None and label == "base":
            continue
        if not isinstance(state, Mapping):
            kind = type(state).__name__
            raise RequestError(f"a state dict maps names to arrays; this is a {kind}", where=label)
        for name, value in state.items():
            if not isinstance(name, str):
                raise RequestError(f"a tensor's name is text, not {name!r}", where=label)
            if not is_torch(value) and not hasattr(value, "__array_interface__"):
                kind = type(value).__name__
                raise RequestError(f"holds a {kind}, not an array or tensor", where=f"{label}: {name}")


def _twins(states: Sequence[State]) -> dict[str, str]:
    """Names that share their storage with an earlier name in every state, by that name."""
    seen: dict[Any, str] = {}
    twins: dict[str, str] = {}
    for name in states[0]:
        if not all(name in state for state in states):
            continue
        identity = tuple(_storage(state[name]) for state in states)
        first = seen.setdefault(identity, name)
        if first != name and all(first in state for state in states):
            twins[name] = first
    return twins


def _storage(value: Any) -> Any:
    """Equal for two views of the same memory in the same shape; unique for empty ones, which have no memory."""
    if is_torch(value):
        plain = value.layout == sys.modules["torch"].strided and value.device.type != "meta" and value.numel()
        return (str(value.device), value.data_ptr(), value.shape, value.stride(), value.dtype) if plain else id(value)
    array = np.asarray(value)
    return (
        (array.__array_interface__["data"][0], array.shape, array.strides, array.dtype.str) if array.size else id(value)
    )


def is_torch(value: Any) -> bool:
    """Whether ``value`` is a torch tensor, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _device_backend(states: Sequence[State]) -> Backend | None:
    """The torch backend for tensors of an accelerator, which must all live on one; None for the CPU."""
    devices = {str(v.device) for state in states for v in state.values() if is_torch(v) and v.device.type != "meta"}
    if devices <= {"cpu"}:
        return None
    if len(devices) > 1:
        hint = "Move them there first, or all of them to the CPU."
        raise RequestError(f"tensors must live on one device, not on {' and '.join(sorted(devices))}", hint=hint)
    from .on_torch import TorchBackend

    return TorchBackend(devices.pop())


def _torch_dtype(name: str, tensor: Any) -> DType:
    """The element type of a plain torch tensor; RequestError for every other kind."""
    torch = sys.modules["torch"]
    if hasattr(tensor, "to_local"):
        raise RequestError("is a DTensor", where=name, hint="Gather it first: tensor.full_tensor().")
    if tensor.device.type == "meta":
        raise RequestError("is on the meta device and has no values", where=name, hint="Load the weights first.")
    if tensor.layout != torch.strided:
        raise RequestError("is a sparse tensor", where=name, hint="Make it dense first: tensor.to_dense().")
    kind = str(tensor.dtype).removeprefix("torch.")
    dtype = BY_NAME.get(kind)
    if dtype is None or (dtype.name.startswith("float8") and dtype not in MERGEABLE):
        raise RequestError(f"tensors of {kind} cannot be merged or copied", where=name, hint=_WIDEN)
    return dtype


def _stored(name: str, value: Any) -> tuple[np.ndarray, DType]:
    """A storage array over the memory of ``value`` where possible, and its element type."""
    if is_torch(value):
        torch = sys.modules["torch"]
        dtype = _torch_dtype(name, value)
        tensor = value.detach().resolve_conj().resolve_neg().contiguous()
        if dtype is BFLOAT16:
            return tensor.view(torch.int16).numpy().view(np.uint16), BFLOAT16
        return tensor.numpy(), dtype
    array = np.asarray(value)
    if array.dtype.name == BFLOAT16.name:
        return array.view(np.uint16), BFLOAT16
    for dtype in ALL:
        if dtype is not BFLOAT16 and not dtype.name.startswith("float8") and dtype.storage == array.dtype:
            return array, dtype
    raise RequestError(f"arrays of {array.dtype} cannot be merged or copied", where=name, hint=_WIDEN)


_WIDEN = "Convert it to float32, bfloat16, float16 or float64 first."


def _restore(flat: Any, job: Job, like: Any) -> Any:
    """``flat`` in the kind of container that ``like`` is."""
    shaped = flat.reshape(job.output.shape)
    if is_torch(flat):
        return shaped
    bfloat16 = job.output.dtype is BFLOAT16
    if is_torch(like):
        torch = sys.modules["torch"]
        made = torch.from_numpy(shaped.view(np.int16) if bfloat16 else shaped)
        return made.view(torch.bfloat16) if bfloat16 else made
    if not bfloat16:
        return shaped
    if np.asarray(like).dtype.name == BFLOAT16.name:
        return shaped.view(np.asarray(like).dtype)
    raise RequestError("NumPy has no bfloat16", where=job.name, hint="Set out_dtype='float32'.")
