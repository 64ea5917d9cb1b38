"""A heat map as filled contours: a picture of values over two axes that can be read off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from rlmerge.report import svg
from rlmerge.report.axes import Axis, axis, finite, frame
from rlmerge.report.svg import BOTTOM, WIDTH
from rlmerge.report.tables import amount
from rlmerge.text import fit

SHADES = 10
"""Colours of the ramp in charts.css, from low and dark to high and bright."""
BANDS = 8

_LEFT, _TOP, _BAR, _RIGHT = 64, 28, 14, 66

Position = tuple[float, float]
Edge = tuple[int, int, int]


def heat_map(
    title: str,
    description: str,
    xs: Sequence[float],
    ys: Sequence[float],
    values: Sequence[Sequence[float | None]],
    *,
    x_label: str,
    y_label: str,
    unit: str,
    percent: bool = False,
    marks: Sequence[tuple[float, float, str]] = (),
    within: Sequence[float] = (),
    height: int = 320,
) -> str:
    """Filled contours of ``values`` [len(xs)][len(ys)] at round levels, with a colour bar; ``xs`` and ``ys`` ascend.

    Values that are missing or not finite are left blank. ``marks`` are named places (x, y, name); ``unit`` heads the
    bar, whose colours reach over the values of ``within`` too, so that pictures can share them. Every grid point says
    its value on hover and to a reader.
    """
    grid = [[float(v) if finite(v) else math.nan for v in row] for row in values]
    known = [v for row in grid for v in row if finite(v)]
    if not known or len(xs) < 2 or len(ys) < 2:
        return svg.nothing(title, description)
    x = axis([], _LEFT + 8, WIDTH - _RIGHT - 8, within=[xs[0], xs[-1]])
    y = axis([], height - BOTTOM, _TOP, within=[ys[0], ys[-1]])
    body = frame(x, y, x_label, y_label)
    low, high = min(*known, *within, math.inf), max(*known, *within, -math.inf)
    levels = _levels(low, high)
    for band, level in enumerate(levels):
        path = "".join(_path(ring, x, y) for ring in rings(xs, ys, grid, level))
        if not path:
            break
        body.append(f'<path d="{path}" fill-rule="evenodd" class="iso h{_shade(band, len(levels))}"/>')
    for i, at in enumerate(xs):
        for j, up in enumerate(ys):
            if finite(grid[i][j]):
                words = f"{x_label} {x.text(at)}, {y_label} {y.text(up)}: {amount(grid[i][j], percent)}"
                body.append(_cell(_side(x, xs, i), _side(y, ys, j), words))
    for number, (at, up, name) in enumerate(marks):
        right = x(at) > (x.start + x.end) / 2
        body.append(f'<circle cx="{x(at)}" cy="{y(up)}" r="4" class="place" {svg.tip(name)}/>')
        anchor, shift = ("end", -8) if right else ("start", 8)
        # Above and below in turn: places are often neighbours on one line.
        body.append(svg.text(x(at) + shift, y(up) + (17 if number % 2 else -8), fit(name, 150), anchor, "on"))
    body += _bar(levels, high, percent, unit, height)
    return svg.figure(height, title, description, body)


def _levels(low: float, high: float) -> list[float]:
    """The lowest value, then the round levels above it."""
    return [low, *(level for level in svg.ticks(low, high, BANDS) if low < level < high)]


def _shade(band: int, bands: int) -> int:
    return round(band * (SHADES - 1) / max(1, bands - 1))


def _path(ring: Sequence[tuple[float, float]], x: Axis, y: Axis) -> str:
    return "M" + "L".join(f"{x(at)} {y(up)}" for at, up in ring) + "Z"


def _side(scale: Axis, places: Sequence[float], index: int) -> tuple[float, float]:
    """From the middle between a grid point and the one before it to the middle after it, in SVG units, ascending."""
    before, after = places[max(0, index - 1)], places[min(len(places) - 1, index + 1)]
    ends = scale((before + places[index]) / 2), scale((places[index] + after) / 2)
    return min(ends), max(ends)


def _cell(across: tuple[float, float], up: tuple[float, float], words: str) -> str:
    box = f'x="{across[0]:g}" y="{up[0]:g}" width="{across[1] - across[0]:.1f}" height="{up[1] - up[0]:.1f}"'
    return f'<rect {box} class="cell" {svg.tip(words)}/>'


def _bar(levels: Sequence[float], high: float, percent: bool, unit: str, height: int) -> list[str]:
    """The colours from the lowest band at the bottom, with the levels between them."""
    left, bottom, top = WIDTH - _RIGHT + 12, height - BOTTOM, _TOP
    step = (bottom - top) / len(levels)
    scale = Axis(levels[0], high, 0, 1, percent)
    distance = (high - levels[0]) / len(levels) or 1.0
    digits = math.ceil(0.5 - math.log10(distance))
    body = [f'<text x="{WIDTH}" y="14" text-anchor="end">{escape(fit(unit, 330))}</text>']
    for band, level in enumerate(levels):
        at = bottom - step * (band + 1)
        box = f'x="{left}" y="{at:.1f}" width="{_BAR}" height="{step:.1f}"'
        body.append(f'<rect {box} class="h{_shade(band, len(levels))}"/>')
        shown = scale.text(_rounded(level, levels[1:2], digits) if band == 0 else level)
        body.append(svg.text(left + _BAR + 5, round(at + step + 4, 1), shown, "start"))
    body.append(svg.text(left + _BAR + 5, top + 4, scale.text(_rounded(high, levels[-1:], digits)), "start"))
    return body


def _rounded(value: float, neighbour: Sequence[float], digits: int) -> float:
    """``value`` with as many decimals as tell it from the level next to it."""
    while digits < 12 and value not in neighbour and round(value, digits) in [round(v, digits) for v in neighbour]:
        digits += 1
    return round(value, digits)


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
