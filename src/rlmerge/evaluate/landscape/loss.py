"""How score and loss change in weight space: around an expert, on the way between two models, under random noise.

The landscape is after "Enough is as good as a feast" (arXiv 2607.22039), known second-hand: θ_a + α·τ_b + β·u, where u
is random with the norm of τ_b in every tensor. What happens along τ_b and not along u is interference; what happens
along both is fragility. The definitions of barrier and sharpness are reconstructions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from rlmerge.errors import RequestError, RunError
from rlmerge.evaluate.landscape.weights import Weights, check_alike, combine, difference, hold, noise
from rlmerge.frozen import frozen
from rlmerge.jsondata import plain_fields
from rlmerge.progress import Progress, Quiet

Point = Mapping[str, tuple[float, float]]
"""Score and loss of each task."""

WeightScorer = Callable[[Weights], Point]
"""Scores weights that exist in memory alone."""

Grid = tuple[tuple[float, ...], ...]


@frozen(slots=True)
class Picture:
    """``score`` and ``loss`` [alphas][betas] of one task around ``center`` = θ_a, ``direction`` being τ_b.

    NaN and infinities stand where the model no longer predicts anything.
    """

    task: str
    center: str
    direction: str
    alphas: tuple[float, ...]
    betas: tuple[float, ...]
    score: Grid
    loss: Grid

    def to_dict(self) -> dict[str, Any]:
        """The picture as plain data, with None for what is not finite."""
        return plain_fields(self)


@frozen(slots=True)
class Barrier:
    """``loss`` [alphas] of a task on the straight line αθ_a + (1−α)θ_b, and how far it rises above its chord."""

    a: str
    b: str
    task: str
    alphas: tuple[float, ...]
    loss: tuple[float, ...]
    barrier: float


@frozen(slots=True)
class Sharpness:
    """How much the loss of a task rises, in the ``mean`` and at most, under ``perturbations`` random ones."""

    model: str
    task: str
    radius: float
    mean: float
    max: float
    loss: float
    perturbations: int


@frozen(slots=True)
class Landscape:
    """What surrounds the experts of an evaluation."""

    pictures: tuple[Picture, ...]
    barriers: tuple[Barrier, ...]
    sharpness: tuple[Sharpness, ...]


def landscape(
    base: Weights,
    center: Weights,
    direction: Weights,
    score: WeightScorer,
    *,
    alphas: Sequence[float],
    betas: Sequence[float] = (0.0,),
    names: tuple[str, str] = ("a", "b"),
    seed: int = 0,
    memory: int = 2**30,
    progress: Progress | None = None,
) -> tuple[Picture, ...]:
    """A picture for each task of ``score``, of the weights θ_a + α·(θ_b − θ_0) + β·u.

    ``base``, ``center`` and ``direction`` are θ_0, θ_a and θ_b; ``names`` those of the last two. With one beta of 0 the
    picture is a curve. The points are float32 and never rounded to a stored type. Directions that take more than
    ``memory`` bytes are computed anew for each point. RequestError when models differ in shape or a coordinate is not
    finite.
    """
    check_alike({"the base": base, names[0]: center, names[1]: direction})
    _check_coordinates(alphas=alphas, betas=betas)
    progress = progress or Quiet()
    vector = hold(difference(direction, base), memory)
    random = hold(noise(vector, "landscape", seed), memory) if any(betas) else vector
    grid: list[list[Point]] = []
    progress.start(f"landscape of {names[0]} along {names[1]}", len(alphas) * len(betas), "models")
    for alpha in alphas:
        grid.append([])
        for beta in betas:
            grid[-1].append(score(combine([(1.0, center), (alpha, vector), (beta, random)])))
            progress.advance(1)
    progress.done()

    def of(task: str, which: int) -> Grid:
        return tuple(tuple(point[task][which] for point in row) for row in grid)

    return tuple(
        Picture(task, *names, tuple(map(float, alphas)), tuple(map(float, betas)), of(task, 0), of(task, 1))
        for task in grid[0][0]
    )


def barrier(
    a: Weights, b: Weights, score: WeightScorer, *, points: int = 11, names: tuple[str, str] = ("a", "b")
) -> tuple[Barrier, ...]:
    """max_α [L(αθ_a + (1−α)θ_b) − αL(θ_a) − (1−α)L(θ_b)] over ``points`` equally spaced α from 0 to 1, for each task.

    At least 0, for the ends lie on the chord: 0 means one basin along this line. RequestError when the models differ in
    shape or there are fewer than 3 points; RunError when an end has no finite loss.
    """
    check_alike({names[0]: a, names[1]: b})
    if points < 3:
        raise RequestError(f"points must be at least 3, not {points}", hint="The ends of the line are two of them.")
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
    score: WeightScorer,
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
    _check_coordinates(radii=radii)
    if perturbations < 1:
        raise RequestError(f"perturbations must be at least 1, not {perturbations}")
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


def _rise(name: str, task: str, radius: float, loss: float, moved: Sequence[Point]) -> Sharpness:
    rises = np.array([point[task][1] - loss for point in moved])
    return Sharpness(name, task, float(radius), float(rises.mean()), float(rises.max()), loss, len(moved))


def _need_finite(loss: float, model: str, task: str) -> None:
    if not math.isfinite(loss):
        hint = "The model gives right answers no probability, or its logits are NaN."
        raise RunError(f"the loss of {model} is {loss}", where=f"task {task!r}", hint=hint)


def _check_coordinates(**axes: Sequence[float]) -> None:
    """RequestError when an axis has no points or one that is not finite."""
    for name, values in axes.items():
        if not values or not all(map(math.isfinite, values)):
            raise RequestError(f"{name} must be one or more finite numbers, not {list(values)}")
