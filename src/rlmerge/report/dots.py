"""Dots with intervals in rows: several series side by side, cut whiskers marked, references as dashed lines."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from . import svg
from .axes import Axis, axis, finite, fit, row_label
from .svg import BOTTOM, RIGHT, TOP, WIDTH
from .tables import interval_text


@dataclass(frozen=True, slots=True)
class Dot:
    """A value in row ``row``, with its interval if it has one; ``note`` is added to what the mark says of itself."""

    row: int
    value: float | None
    low: float | None = None
    high: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Dots:
    """The dots of one series; ``color`` is its number, whose button in the legend hides it if ``toggled``.

    An only series needs no ``name``.
    """

    name: str
    color: int
    dots: Sequence[Dot]
    toggled: bool = True


def dot_plot(
    title: str,
    description: str,
    labels: Sequence[str],
    series: Sequence[Dots],
    *,
    x_label: str,
    percent: bool = False,
    references: Sequence[float] = (),
    within: Sequence[float] = (),
    label_width: int = 132,
) -> str:
    """One row per label, in each a dot and an interval for every series; dots without a finite value are left out.

    ``references`` are drawn as dashed lines; they and the values of ``within`` are always in view. An
    interval far longer than the others is cut, with an arrow where it goes on.
    """
    drawn = [dot for one in series for dot in one.dots if finite(dot.value)]
    if not drawn:
        return svg.figure(60, title, description, [svg.text(WIDTH / 2, 34, "nothing to draw")])
    step = max(28, 9 * len(series) + 11)
    bottom = TOP + step * len(labels)
    x = axis(_extent(drawn, [*references, *within]), label_width + 14, WIDTH - RIGHT - 8, percent=percent)
    body: list[str] = []
    for value in x.ticks(5):
        body.append(svg.line(x(value), TOP, x(value), bottom, "grid"))
        body.append(svg.text(x(value), bottom + 15, x.text(value)))
    for row, label in enumerate(labels):
        if row % 2:
            body.append(f'<rect x="0" y="{TOP + step * row}" width="{WIDTH}" height="{step}" class="stripe"/>')
        body.append(row_label(label_width, TOP + step * (row + 0.5) + 4, label, label_width))
    body += [svg.line(x(value), TOP - 4, x(value), bottom, "reference") for value in references]
    body.append(svg.text((x.start + x.end) / 2, bottom + 34, fit(x_label, x.end - x.start, size=6), kind="label"))
    spread = min(9.0, (step - 11) / max(1, len(series)))
    for order, one in enumerate(series):
        shift = spread * (order - (len(series) - 1) / 2)
        body.append(svg.group(one.color, one.toggled))
        for dot in one.dots:
            if dot.value is not None and finite(dot.value):
                middle = round(TOP + step * (dot.row + 0.5) + shift, 1)
                who = f"{labels[dot.row]}, {one.name}" if one.name else labels[dot.row]
                words = f"{who}: {interval_text(dot.value, dot.low, dot.high, percent)}"
                body += _whisker(x, dot, middle)
                body.append(svg.marker(x(dot.value), middle, one.color, words + dot.note, 4.0))
        body.append("</g>")
    return svg.figure(bottom + BOTTOM, title, description, body)


def _whisker(x: Axis, dot: Dot, middle: float) -> list[str]:
    """The interval's line, with an arrow head at an end that the axis cuts."""
    if dot.low is None or dot.high is None or not (finite(dot.low) and finite(dot.high)):
        return []
    parts = [svg.line(x(dot.low), middle, x(dot.high), middle, "whisker")]
    for cut, at, way in ((dot.low < x.low, x.start, 5), (dot.high > x.high, x.end, -5)):
        if cut:
            head = f"M{at + way:g} {middle - 3.5:g}L{at:g} {middle}L{at + way:g} {middle + 3.5:g}"
            parts.append(f'<path d="{head}" class="line"/>')
    return parts


def _extent(dots: Sequence[Dot], references: Sequence[float]) -> list[float]:
    """What the axis has to hold: every value and reference, and of each interval at most four usual lengths."""
    values = [dot.value for dot in dots if dot.value is not None]
    reach = [
        abs(end - dot.value)
        for dot in dots
        for end in (dot.low, dot.high)
        if end is not None and dot.value is not None and finite(end)
    ]
    spread = max([*values, *references]) - min([*values, *references])
    most = max(spread, 4 * statistics.median(reach)) if reach else 0.0
    ends = [
        min(max(end, dot.value - most), dot.value + most)
        for dot in dots
        for end in (dot.low, dot.high)
        if end is not None and dot.value is not None and finite(end)
    ]
    return [*values, *references, *ends]
