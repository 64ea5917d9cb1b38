"""Small hand-made SVG charts: text in, text out, no dependency. Colours are CSS variables, so themes and print work.

Every chart is ``WIDTH`` units wide and scales with its column. Marks carry ``data-tip``: the page shows it on hover and
when a reader steps through the marks with the arrow keys.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 420
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 12, 40


@dataclass(frozen=True)
class Scale:
    """A linear map from [low, high] to [start, end] in SVG units."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low or 1.0
        return round(self.start + (value - self.low) / span * (self.end - self.start), 1)


@dataclass(frozen=True)
class Series:
    """Points of one expert: ``color`` is its number, NaN values are gaps."""

    name: str
    color: int
    points: Sequence[tuple[float, float]]


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


def lines(
    title: str,
    description: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    percent: bool,
    x_text: Callable[[float], str] = "{:g}".format,
    from_zero: bool = False,
    height: int = 260,
    markers: bool = True,
) -> str:
    """A line chart of several series over a common axis."""
    found = [(x, y) for s in series for x, y in s.points if math.isfinite(y)]
    if not found:
        return figure(60, title, description, [text(WIDTH / 2, 34, "nothing to draw")])
    low, high = min(y for _, y in found), max(y for _, y in found)
    pad = (high - low) * 0.08 or abs(high) * 0.1 or 0.01
    low, high = (0.0 if from_zero else max(0.0, low - pad)), high + pad
    if percent:
        high = min(1.0, high)
    x = Scale(min(p for p, _ in found), max(p for p, _ in found), LEFT + 8, WIDTH - RIGHT - 8)
    y = Scale(low, high, height - BOTTOM, TOP)
    body = _y_axis(y, ticks(low, high), y_label, percent)
    for value in _thin([t for t in ticks(x.low, x.high, 6) if t == int(t)] or [x.low]):
        body.append(text(x(value), height - BOTTOM + 15, x_text(value)))
    body.append(text((LEFT + WIDTH - RIGHT) / 2, height - 6, x_label, kind="label"))
    for s in series:
        parts = [(p, v) for p, v in s.points if math.isfinite(v)]
        path = "M" + "L".join(f"{x(p)} {y(v)}" for p, v in parts)
        body.append(f'<g data-series="{s.color}"><path d="{path}" class="line s{s.color}"/>')
        size = 4.0 if markers and len(parts) <= 40 else 2.2
        for p, v in parts:
            shown = f"{100 * v:.1f} %" if percent else f"{v:.3g}"
            body.append(marker(x(p), y(v), s.color, f"{s.name}, {x_text(p)}: {shown}", size))
        body.append("</g>")
    return figure(height, title, description, body)


def rows(
    title: str,
    description: str,
    labels: Sequence[str],
    series: Sequence[Series],
    *,
    percent: bool,
    x_label: str,
    reference: float | None = None,
    bars: bool = False,
    label_width: int = 146,
) -> str:
    """One row per label: dots of several series (``Series.points`` are (row, value)), or bars of a single one."""
    step = 26
    height = TOP + step * len(labels) + BOTTOM
    found = [v for s in series for _, v in s.points if math.isfinite(v)]
    high = max([*found, reference or 0.0, 1e-12]) * (1.0 if percent and max(found, default=0) > 0.9 else 1.06)
    low = 0.0 if bars or not found else max(0.0, min([*found, reference or math.inf]) - 0.08 * high)
    x = Scale(low, high, label_width + 6, WIDTH - RIGHT - 10)
    bottom = height - BOTTOM
    body: list[str] = []
    for value in ticks(low, high, 4):
        body.append(line(x(value), TOP, x(value), bottom, "grid"))
        body.append(text(x(value), bottom + 15, f"{100 * value:.4g} %" if percent else f"{value:.3g}"))
    if reference is not None:
        body.append(line(x(reference), TOP - 4, x(reference), bottom, "reference"))
    body.append(text((label_width + WIDTH - RIGHT) / 2, height - 6, x_label, kind="label"))
    for i, label in enumerate(labels):
        middle = TOP + step * i + step / 2
        body.append(text(label_width, middle + 4, label, "end", "row"))
        body.append(line(label_width + 6, middle, WIDTH - RIGHT, middle, "rule"))
    lift = min(5.0, (step - 8) / max(1, len(series)))
    for order, s in enumerate(series):
        body.append(f'<g data-series="{s.color}">')
        for row, value in s.points:
            if not math.isfinite(value):
                continue
            # Dots of one row stand a little apart, so that equal values do not hide each other.
            middle = round(TOP + step * row + step / 2 + lift * (order - (len(series) - 1) / 2), 1)
            shown = f"{100 * value:.1f} %" if percent else f"{value:.3g}"
            content = f"{labels[int(row)]}, {s.name}: {shown}"
            if bars:
                width = max(1.0, x(value) - x(low))
                box = f'x="{x(low)}" y="{middle - 8}" width="{width:.1f}" height="16" rx="2"'
                body.append(f'<rect {box} class="bar" {tip(content)}/>')
            else:
                body.append(marker(x(value), middle, s.color, content))
        body.append("</g>")
    return figure(int(height), title, description, body)


def stacks(
    title: str, description: str, labels: Sequence[str], parts: Sequence[Sequence[float]], names: Sequence[str]
) -> str:
    """Horizontal bars split into shares: ``parts`` [rows][j], ``names`` [j]."""
    step, label_width = 26, 146
    height = TOP + step * len(labels) + BOTTOM
    x = Scale(0.0, 1.0, label_width + 6, WIDTH - RIGHT - 10)
    body: list[str] = []
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        body.append(text(x(value), height - BOTTOM + 15, f"{100 * value:g} %"))
    for i, (label, shares) in enumerate(zip(labels, parts, strict=True)):
        middle, at = TOP + step * i + step / 2, 0.0
        body.append(text(label_width, middle + 4, label, "end", "row"))
        for j, share in enumerate(shares):
            if not math.isfinite(share) or share <= 0:
                continue
            box = f'x="{x(at)}" y="{middle - 9}" width="{max(0.5, x(at + share) - x(at) - 1):.1f}" height="18"'
            strength = 0.25 + 0.75 * (j / max(1, len(shares) - 1))
            content = f"{label}: {100 * share:.1f} % {names[j]}"
            body.append(f'<rect {box} class="bar" fill-opacity="{strength:.2f}" {tip(content)}/>')
            at += share
    return figure(int(height), title, description, body)


def _y_axis(y: Scale, values: Sequence[float], label: str, percent: bool) -> list[str]:
    body: list[str] = []
    for value in values:
        body.append(line(LEFT, y(value), WIDTH - RIGHT, y(value), "grid"))
        body.append(text(LEFT - 6, y(value) + 4, f"{100 * value:.4g} %" if percent else f"{value:.3g}", "end"))
    middle = (y.start + y.end) / 2
    body.append(f'<text transform="translate(9 {middle:.0f}) rotate(-90)" class="label">{escape(label)}</text>')
    return body


def _thin(values: list[float]) -> list[float]:
    return values if len(values) <= 9 else values[:: -(-len(values) // 9)]
