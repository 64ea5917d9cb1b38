"""Weights as mappings from tensor name to float32 array, computed when asked for: whole models are never copied."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from rlmerge.checkpoint.model import open_checkpoint
from rlmerge.errors import RequestError
from rlmerge.kernels.dtypes import decode
from rlmerge.kernels.random import stream_key, uniform

Weights = Mapping[str, np.ndarray]
"""float32 arrays by tensor name."""

_PIECE = 2**20


class Lazy(Mapping[str, np.ndarray]):
    """Tensors of known ``shapes``, each made by ``compute`` whenever it is asked for."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], compute: Callable[[str], np.ndarray]) -> None:
        self.shapes = shapes
        self._compute = compute

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.shapes:
            raise KeyError(name)
        return self._compute(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


def read_weights(model: Path, memory: int = 2**30) -> Weights:
    """The float tensors of a model directory; all at once if they take at most ``memory`` bytes, else one at a time.

    Integer tensors are left out: they are not merged. CheckpointError when the directory holds no model.
    """
    checkpoint = open_checkpoint(model)
    floats = {name: info for name, info in checkpoint.tensors.items() if info.dtype.is_float}

    def read(name: str) -> np.ndarray:
        info = floats[name]
        return decode(info.read(), info.dtype).astype(np.float32, copy=False).reshape(info.shape)

    return hold(Lazy({name: info.shape for name, info in floats.items()}, read), memory)


def hold(weights: Weights, memory: int) -> Weights:
    """The arrays of ``weights`` if they take at most ``memory`` bytes, else ``weights`` as they are."""
    size = 4 * sum(math.prod(shape) for shape in shapes_of(weights).values())
    return dict(weights) if size <= memory else weights


def shapes_of(weights: Weights) -> dict[str, tuple[int, ...]]:
    """Shape of each tensor, without computing lazy ones."""
    if isinstance(weights, Lazy):
        return dict(weights.shapes)
    return {name: array.shape for name, array in weights.items()}


def check_alike(models: Mapping[str, Weights]) -> None:
    """RequestError unless all models hold tensors of the same names and shapes as the first."""
    (first, weights), *others = models.items()
    expected = shapes_of(weights)
    for name, other in others:
        found = shapes_of(other)
        wrong = next((tensor for tensor in {**expected, **found} if expected.get(tensor) != found.get(tensor)), None)
        if wrong is not None:
            sizes = [list(shapes[wrong]) if wrong in shapes else "nothing" for shapes in (found, expected)]
            what = f"{name} holds {sizes[0]} where {first} holds {sizes[1]}"
            raise RequestError(what, where=wrong, hint="Only models of one architecture lie in one space.")


def difference(a: Weights, b: Weights) -> Weights:
    """a − b, such as the task vector of an expert ``a`` of the base ``b``."""
    return Lazy(shapes_of(a), lambda name: a[name] - b[name])


def combine(terms: Sequence[tuple[float, Weights]]) -> Weights:
    """Σ coefficient × weights, in float32 and in the given order; terms of coefficient 0 are left out."""
    chosen = [(np.float32(factor), weights) for factor, weights in terms if factor] or [(np.float32(0), terms[0][1])]

    def compute(name: str) -> np.ndarray:
        (factor, weights), *rest = chosen
        total = weights[name] * factor
        for factor, weights in rest:
            total += weights[name] * factor
        return total

    return Lazy(shapes_of(terms[0][1]), compute)


def noise(like: Weights, *labels: object, scale: float = 1.0, by_entry: bool = False) -> Weights:
    """Random weights in which each tensor has ``scale`` times the norm of its namesake in ``like``.

    Entries are independent normal numbers, with ``by_entry`` times the magnitude of the entry in ``like``. They follow
    from ``labels``, tensor name and place alone.
    """

    def compute(name: str) -> np.ndarray:
        model = like[name]
        made = _normal(("noise", *labels, name), model.shape)
        if by_entry:
            made *= np.abs(model)
        length = norm(made)
        made *= np.float32(scale * norm(model) / length if length else 0.0)
        return made

    return Lazy(shapes_of(like), compute)


def norm(array: np.ndarray) -> float:
    """Euclidean norm, summed in float64."""
    flat = array.reshape(-1)
    pieces = (flat[start : start + _PIECE].astype(np.float64) for start in range(0, flat.size, _PIECE))
    return math.sqrt(sum(float(piece @ piece) for piece in pieces))


def _normal(labels: tuple[object, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal float32 numbers by Box and Muller's transform of two streams of uniform ones."""
    out = np.empty(math.prod(shape), np.float32)
    radius, angle = stream_key(*labels, "radius"), stream_key(*labels, "angle")
    for start in range(0, out.size, _PIECE):
        count = min(_PIECE, out.size - start)
        length = np.sqrt(-2 * np.log1p(-uniform(radius, start, count, np.float64)))
        out[start : start + count] = length * np.cos(2 * np.pi * uniform(angle, start, count, np.float64))
    return out.reshape(shape)
