"""Small hand-made SVG charts: text in, text out, no dependency. Colours are CSS variables, so themes and print work.

Every chart is ``WIDTH`` units wide and scales with its column. Marks carry ``data-tip``: the page shows it on hover and
when a reader steps through the marks with the arrow keys.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from rlmerge.frozen import frozen

WIDTH = 420
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 12, 40

COLORS = 12
"""Colours of series in page.css, by number."""


@frozen
class Scale:
    """A linear map from [low, high] to [start, end] in SVG units."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low or 1.0
        return round(self.start + (value - self.low) / span * (self.end - self.start), 1)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers in [low, high], about ``count`` of them."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def figure(height: int, title: str, description: str, body: Sequence[str]) -> str:
    """An SVG element with an accessible name and description."""
    label, text = escape(title, quote=True), escape(description)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}" tabindex="0" class="plot">'
        f"<desc>{text}</desc>{''.join(body)}</svg>"
    )


def nothing(title: str, description: str) -> str:
    """The figure of a chart without data."""
    return figure(60, title, description, [text(WIDTH / 2, 34, "nothing to draw")])


def text(x: float, y: float, content: str, anchor: str = "middle", kind: str = "tick") -> str:
    """A label."""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" class="{kind}">{escape(content)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line."""
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" class="{kind}"/>'


def group(color: int, toggled: bool = True) -> str:
    """Opens the group of a series in its colour; the legend's button of that colour hides it if ``toggled``."""
    return f'<g data-series="{color}" class="s{color}">' if toggled else f'<g class="s{color}">'


def tip(content: str) -> str:
    """Attributes that make a mark explain itself."""
    return f'data-tip="{escape(content, quote=True)}"'


def marker(x: float, y: float, color: int, content: str, size: float = 4.5) -> str:
    """A mark whose shape goes with its colour: circle, square, diamond or triangle."""
    s = size
    shapes = (
        f'<circle cx="{x}" cy="{y}" r="{s}"',
        f'<rect x="{x - s + 0.5:.1f}" y="{y - s + 0.5:.1f}" width="{2 * s - 1}" height="{2 * s - 1}"',
        f'<path d="M{x} {y - s - 1:.1f}L{x + s + 1:.1f} {y}L{x} {y + s + 1:.1f}L{x - s - 1:.1f} {y}Z"',
        f'<path d="M{x} {y - s - 0.5:.1f}L{x + s + 0.5:.1f} {y + s - 0.5:.1f}L{x - s - 0.5:.1f} {y + s - 0.5:.1f}Z"',
    )
    return f'{shapes[color % len(shapes)]} class="mark s{color}" {tip(content)}/>'
