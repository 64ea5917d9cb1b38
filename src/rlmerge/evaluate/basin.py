"""Do two models lie in one basin, and how sharp is it? (Definitions are reconstructions.)"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rlmerge.errors import RequestError, RunError
from rlmerge.evaluate.landscape import Scorer, check_coordinates, finite
from rlmerge.evaluate.weights import Weights, check_alike, combine, noise


@dataclass(frozen=True, slots=True)
class Barrier:
    """``loss`` [alphas] of a task on the straight line αθ_a + (1−α)θ_b, and how far it rises above its chord."""

    a: str
    b: str
    task: str
    alphas: tuple[float, ...]
    loss: tuple[float, ...]
    barrier: float

    def to_dict(self) -> dict[str, Any]:
        """The barrier as plain data, with None for what is not finite."""
        return {
            "a": self.a,
            "b": self.b,
            "task": self.task,
            "alphas": list(self.alphas),
            "loss": list(map(finite, self.loss)),
            "barrier": finite(self.barrier),
        }


@dataclass(frozen=True, slots=True)
class Sharpness:
    """How much the loss of a task rises, in the ``mean`` and at most, under ``perturbations`` random ones."""

    model: str
    task: str
    radius: float
    mean: float
    max: float
    loss: float
    perturbations: int

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain data, with None for what is not finite; ``loss`` is that of the unperturbed model."""
        return {
            "model": self.model,
            "task": self.task,
            "radius": self.radius,
            "mean": finite(self.mean),
            "max": finite(self.max),
            "loss": self.loss,
            "perturbations": self.perturbations,
        }


def barrier(
    a: Weights, b: Weights, score: Scorer, *, points: int = 11, names: tuple[str, str] = ("a", "b")
) -> tuple[Barrier, ...]:
    """max_α [L(αθ_a + (1−α)θ_b) − αL(θ_a) − (1−α)L(θ_b)] over ``points`` equally spaced α from 0 to 1, for each task.

    At least 0, for the ends lie on the chord: 0 means one basin along this line. RequestError when the models differ in
    shape or there are fewer than 3 points; RunError when an end has no finite loss.
    """
    check_alike({names[0]: a, names[1]: b})
    if points < 3:
        raise RequestError(f"a line of {points} points has no inside", hint="Use 3 points or more.")
    alphas = np.linspace(0, 1, points)
    found = [score(combine([(float(alpha), a), (float(1 - alpha), b)])) for alpha in alphas]
    results: list[Barrier] = []
    for task in found[0]:
        loss = np.array([point[task][1] for point in found])
        _need_finite(loss[0], names[1], task)
        _need_finite(loss[-1], names[0], task)
        rise = float(np.max(loss - alphas * loss[-1] - (1 - alphas) * loss[0]))
        results.append(Barrier(*names, task, tuple(alphas.tolist()), tuple(loss.tolist()), rise))
    return tuple(results)


def sharpness(
    model: Weights,
    score: Scorer,
    *,
    radii: Sequence[float] = (0.01,),
    perturbations: int = 5,
    relative: Literal["tensor", "entry"] = "tensor",
    name: str = "model",
    seed: int = 0,
) -> tuple[Sharpness, ...]:
    """Rise of the loss from θ to θ + δ, δ random with ‖δ_t‖ = ``radius``·‖θ_t‖ in every tensor t, for each task.

    The entries of δ are normal, or with ``relative="entry"`` normal times the magnitude of the weight they move. The
    same ``seed`` gives the same directions for every radius and every model of the same tensor names and shapes.
    RequestError for a radius that is not finite or no perturbations; RunError when the model itself has no finite loss.
    """
    check_coordinates(radii=radii)
    if perturbations < 1:
        raise RequestError(f"perturbations is {perturbations}", hint="It must be at least 1.")
    still = {task: loss for task, (_, loss) in score(model).items()}
    for task, loss in still.items():
        _need_finite(loss, name, task)
    results: list[Sharpness] = []
    for radius in radii:
        moved = [
            score(combine([(1.0, model), (radius, noise(model, "sharpness", seed, k, by_entry=relative == "entry"))]))
            for k in range(perturbations)
        ]
        results += [_rise(name, task, radius, loss, moved) for task, loss in still.items()]
    return tuple(results)


def _rise(
    name: str, task: str, radius: float, loss: float, moved: Sequence[Mapping[str, tuple[float, float]]]
) -> Sharpness:
    rises = np.array([point[task][1] - loss for point in moved])
    return Sharpness(name, task, float(radius), float(rises.mean()), float(rises.max()), loss, len(moved))


def _need_finite(loss: float, model: str, task: str) -> None:
    if not math.isfinite(loss):
        hint = "The model gives right answers no probability, or its logits are NaN."
        raise RunError(f"the loss of {model} is {loss}", where=f"task {task!r}", hint=hint)
