"""Histograms one under the other over a common axis, so that distributions of several models can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from . import svg
from .axes import axis, row_label
from .svg import BOTTOM, RIGHT, TOP, WIDTH
from .tables import amount


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts [n] between edges [n + 1]; ``middle`` is marked, the median for example."""

    name: str
    color: int
    edges: Sequence[float]
    counts: Sequence[float]
    middle: float | None = None


def ridge_plot(
    title: str, description: str, histograms: Sequence[Histogram], *, x_label: str, label_width: int = 132
) -> str:
    """A row per histogram; heights are shares per unit of the axis, on one scale for all rows."""
    shown = [h for h in histograms if sum(h.counts) > 0 and len(h.edges) == len(h.counts) + 1]
    if not shown:
        return svg.figure(60, title, description, [svg.text(WIDTH / 2, 34, "nothing to draw")])
    step, top = 44, TOP + 6
    bottom = top + step * len(shown)
    edges = [edge for h in shown for edge in h.edges]
    x = axis([], label_width + 14, WIDTH - RIGHT - 8, within=[min(edges), max(edges)])
    tallest = max(max(_densities(h)) for h in shown)
    body: list[str] = []
    for value in x.ticks(5):
        body.append(svg.line(x(value), TOP, x(value), bottom, "grid"))
        body.append(svg.text(x(value), bottom + 15, x.text(value)))
    body.append(svg.text((x.start + x.end) / 2, bottom + 34, x_label, kind="label"))
    for row, h in enumerate(shown):
        ground = top + step * (row + 1)
        body.append(row_label(label_width, ground - step / 3, h.name, label_width))
        body.append(svg.line(x.start, ground, x.end, ground, "rule"))
        body.append(svg.group(h.color))
        total = sum(h.counts)
        for left, right, count, density in zip(h.edges, h.edges[1:], h.counts, _densities(h), strict=False):
            tall = (step - 6) * density / tallest
            wide = max(0.6, x(right) - x(left) - 0.6)
            box = f'x="{x(left)}" y="{ground - tall:.1f}" width="{wide:.1f}" height="{tall:.1f}"'
            if count > 0:
                words = f"{h.name}, {x.text(left)} to {x.text(right)}: {100 * count / total:.1f} %"
                body.append(f'<rect {box} class="fill" {svg.tip(words)}/>')
        if h.middle is not None:
            at = x(h.middle)
            words = f"{h.name}, median {amount(h.middle)}"
            body.append(f'<path d="M{at} {ground}l-4 6h8Z" class="fill" {svg.tip(words)}/>')
        body.append("</g>")
    return svg.figure(bottom + BOTTOM, title, description, body)


def _densities(h: Histogram) -> list[float]:
    total = sum(h.counts)
    return [
        count / total / (right - left) if right > left else 0.0
        for left, right, count in zip(h.edges, h.edges[1:], h.counts, strict=False)
    ]
