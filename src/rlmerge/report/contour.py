"""Isolines of values on a grid: where they reach a level, as closed rings."""

from __future__ import annotations

import math
from collections.abc import Sequence

Position = tuple[float, float]
Edge = tuple[int, int, int]


def rings(
    xs: Sequence[float], ys: Sequence[float], values: Sequence[Sequence[float]], level: float
) -> list[list[Position]]:
    """The outlines of the region where ``values`` [len(xs)][len(ys)] ≥ ``level``, by marching squares.

    Between two grid points the values are taken as linear; a saddle is split by the mean of its four corners. Outside
    the grid, and where a value is not finite, the region ends, so every ring is closed; holes are rings of their own.
    """
    across, down = len(xs), len(ys)
    outside = -math.inf

    def value(i: int, j: int) -> float:
        if not (0 <= i < across and 0 <= j < down):
            return outside
        return values[i][j] if math.isfinite(values[i][j]) else outside

    def place(i: int, j: int) -> Position:
        return xs[min(max(i, 0), across - 1)], ys[min(max(j, 0), down - 1)]

    def crossing(edge: Edge) -> Position:
        i, j, upright = edge
        ends = ((i, j), (i, j + 1)) if upright else ((i, j), (i + 1, j))
        inner, outer = ends if value(*ends[0]) >= level else ends[::-1]
        high, low = value(*inner), value(*outer)
        part = 0.0 if low == outside else (high - level) / (high - low)
        (x0, y0), (x1, y1) = place(*inner), place(*outer)
        return x0 + part * (x1 - x0), y0 + part * (y1 - y0)

    following: dict[Edge, Edge] = {}
    for i in range(-1, across):
        for j in range(-1, down):
            corners = [value(i, j), value(i + 1, j), value(i + 1, j + 1), value(i, j + 1)]
            edges: list[Edge] = [(i, j, 0), (i + 1, j, 1), (i, j + 1, 0), (i, j, 1)]
            crossed = [k for k in range(4) if (corners[k] >= level) != (corners[(k + 1) % 4] >= level)]
            leaving = [k for k in crossed if corners[k] >= level]
            entering = [k for k in crossed if corners[k] < level]
            joined = sum(corners) / 4 >= level
            for k in leaving:
                # Counted around the cell, the outside corners follow the leaving edge and the inside ones precede it.
                gap = [(e - k) % 4 for e in entering]
                to = entering[gap.index(min(gap) if joined else max(gap))]
                following[edges[k]] = edges[to]
    found: list[list[Position]] = []
    while following:
        edge, after = following.popitem()
        ring = [crossing(edge)]
        while after != edge:
            ring.append(crossing(after))
            after = following.pop(after)
        found.append([at for n, at in enumerate(ring) if at != ring[n - 1]])
    return [ring for ring in found if len(ring) > 2]
