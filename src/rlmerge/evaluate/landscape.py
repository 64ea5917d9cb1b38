"""Score and loss around an expert, along another expert's task vector and a random direction.

After "Enough is as good as a feast" (arXiv 2607.22039), known second-hand: θ_a + α·τ_b + β·u, where u is random with
the norm of τ_b in every tensor. What happens along τ_b and not along u is interference; what happens along both is
fragility.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlmerge.errors import RequestError
from rlmerge.evaluate.weights import Weights, check_alike, combine, difference, hold, noise
from rlmerge.progress import Progress, Quiet

Scorer = Callable[[Weights], Mapping[str, tuple[float, float]]]
"""Score and loss of each task, for weights that exist in memory alone."""

Grid = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
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
        return {
            "task": self.task,
            "center": self.center,
            "direction": self.direction,
            "alphas": list(self.alphas),
            "betas": list(self.betas),
            "score": [list(map(finite, row)) for row in self.score],
            "loss": [list(map(finite, row)) for row in self.loss],
        }


def landscape(
    base: Weights,
    center: Weights,
    direction: Weights,
    score: Scorer,
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
    check_coordinates(alphas=alphas, betas=betas)
    told = progress or Quiet()
    vector = hold(difference(direction, base), memory)
    random = hold(noise(vector, "landscape", seed), memory) if any(betas) else vector
    grid: list[list[Mapping[str, tuple[float, float]]]] = []
    told.start(f"landscape of {names[0]} along {names[1]}", len(alphas) * len(betas), "models")
    for alpha in alphas:
        grid.append([])
        for beta in betas:
            grid[-1].append(score(combine([(1.0, center), (alpha, vector), (beta, random)])))
            told.advance(1)
    told.done()

    def of(task: str, which: int) -> Grid:
        return tuple(tuple(point[task][which] for point in row) for row in grid)

    return tuple(
        Picture(task, *names, tuple(map(float, alphas)), tuple(map(float, betas)), of(task, 0), of(task, 1))
        for task in grid[0][0]
    )


def check_coordinates(**axes: Sequence[float]) -> None:
    """RequestError when an axis has no points or one that is not finite."""
    for name, values in axes.items():
        if not values or not all(map(math.isfinite, values)):
            raise RequestError(f"{name} are {list(values)}", hint="Give at least one number, and finite ones.")


def finite(value: float) -> float | None:
    """``value``, or None where JSON has no number for it."""
    return value if math.isfinite(value) else None
