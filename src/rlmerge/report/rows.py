"""Charts of a row for each label: dots with intervals, bars, stacked shares, histograms."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from rlmerge.frozen import frozen
from rlmerge.report import svg
from rlmerge.report.axes import Axis, axis, finite, row_label
from rlmerge.report.svg import BOTTOM, RIGHT, TOP, WIDTH
from rlmerge.report.tables import amount, interval_text
from rlmerge.text import fit


@frozen(slots=True)
class Dot:
    """A value in row ``row``, with its interval if it has one; ``note`` is added to what the mark says of itself."""

    row: int
    value: float | None
    low: float | None = None
    high: float | None = None
    note: str = ""


@frozen(slots=True)
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
        return svg.nothing(title, description)
    step = max(28, 9 * len(series) + 11)
    bottom = TOP + step * len(labels)
    x = axis(_extent(drawn, [*references, *within]), label_width + 14, WIDTH - RIGHT - 8, percent=percent)
    body = _x_axis(x, x_label, bottom) + _labels(labels, step, label_width)
    body += [svg.line(x(value), TOP - 4, x(value), bottom, "reference") for value in references]
    spread = min(9.0, (step - 11) / max(1, len(series)))
    for order, one in enumerate(series):
        shift = spread * (order - (len(series) - 1) / 2)
        body.append(svg.group(one.color, one.toggled))
        for dot in one.dots:
            if finite(dot.value):
                middle = round(TOP + step * (dot.row + 0.5) + shift, 1)
                who = f"{labels[dot.row]}, {one.name}" if one.name else labels[dot.row]
                words = f"{who}: {interval_text(dot.value, dot.low, dot.high, percent)}"
                body += _whisker(x, dot, middle)
                body.append(svg.marker(x(dot.value), middle, one.color, words + dot.note, 4.0))
        body.append("</g>")
    return svg.figure(bottom + BOTTOM, title, description, body)


def _whisker(x: Axis, dot: Dot, middle: float) -> list[str]:
    """The interval's line, with an arrow head at an end that the axis cuts."""
    if not (finite(dot.low) and finite(dot.high)):
        return []
    parts = [svg.line(x(dot.low), middle, x(dot.high), middle, "whisker")]
    for cut, at, way in ((dot.low < x.low, x.start, 5), (dot.high > x.high, x.end, -5)):
        if cut:
            head = f"M{at + way:g} {middle - 3.5:g}L{at:g} {middle}L{at + way:g} {middle + 3.5:g}"
            parts.append(f'<path d="{head}" class="line"/>')
    return parts


def _extent(dots: Sequence[Dot], references: Sequence[float]) -> list[float]:
    """What the axis has to hold: every value and reference, and of each interval at most four usual lengths."""
    values = [dot.value for dot in dots if finite(dot.value)]
    ends = [(dot.value, end) for dot in dots for end in (dot.low, dot.high) if finite(end) and finite(dot.value)]
    reach = [abs(end - value) for value, end in ends]
    spread = max([*values, *references]) - min([*values, *references])
    most = max(spread, 4 * statistics.median(reach)) if reach else 0.0
    return [*values, *references, *(min(max(end, value - most), value + most) for value, end in ends)]


def bar_plot(
    title: str,
    description: str,
    labels: Sequence[str],
    values: Sequence[float | None],
    *,
    x_label: str,
    percent: bool = False,
    label_width: int = 132,
) -> str:
    """A bar from 0 for each label that has a value."""
    step = 28
    bottom = TOP + step * len(labels)
    known = [value for value in values if finite(value)]
    if not known:
        return svg.nothing(title, description)
    x = axis(known, label_width + 14, WIDTH - RIGHT - 8, percent=percent, within=[0.0, *([1.0] if percent else [])])
    body = _x_axis(x, x_label, bottom) + _labels(labels, step, label_width)
    for row, (label, value) in enumerate(zip(labels, values, strict=True)):
        if finite(value):
            left, right = sorted((x(0.0), x(value)))
            box = f'x="{left}" y="{TOP + step * row + 6}" width="{max(1.0, right - left):.1f}" height="16" rx="2"'
            body.append(f'<rect {box} class="bar" {svg.tip(f"{label}: {amount(value, percent)}")}/>')
    return svg.figure(bottom + BOTTOM, title, description, body)


def stack_plot(
    title: str,
    description: str,
    labels: Sequence[str],
    parts: Sequence[Sequence[float]],
    names: Sequence[str],
    *,
    label_width: int = 132,
) -> str:
    """Bars split into shares: ``parts`` [rows][j], ``names`` [j]; the later the darker."""
    step = 28
    bottom = TOP + step * len(labels)
    x = Axis(0.0, 1.0, label_width + 14, WIDTH - RIGHT - 8, percent=True)
    body = _x_axis(x, "", bottom) + _labels(labels, step, label_width)
    for row, (label, shares) in enumerate(zip(labels, parts, strict=True)):
        at = 0.0
        for j, share in enumerate(shares):
            if not math.isfinite(share) or share <= 0:
                continue
            box = (
                f'x="{x(at)}" y="{TOP + step * row + 5}" width="{max(0.5, x(at + share) - x(at) - 1):.1f}" height="18"'
            )
            strength = 0.25 + 0.75 * (j / max(1, len(shares) - 1))
            words = f"{label}: {amount(share, percent=True)} {names[j]}"
            body.append(f'<rect {box} class="bar" fill-opacity="{strength:.2f}" {svg.tip(words)}/>')
            at += share
    return svg.figure(bottom + BOTTOM, title, description, body)


@frozen(slots=True)
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
        return svg.nothing(title, description)
    step, top = 44, TOP + 6
    bottom = top + step * len(shown)
    edges = [edge for h in shown for edge in h.edges]
    x = axis([], label_width + 14, WIDTH - RIGHT - 8, within=[min(edges), max(edges)])
    tallest = max(max(_densities(h)) for h in shown)
    body = _x_axis(x, x_label, bottom)
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


def _x_axis(x: Axis, label: str, bottom: float) -> list[str]:
    """Grid lines over the rows, with their values and the label below."""
    body: list[str] = []
    for value in x.ticks(5):
        body.append(svg.line(x(value), TOP, x(value), bottom, "grid"))
        body.append(svg.text(x(value), bottom + 15, x.text(value)))
    middle = (x.start + x.end) / 2
    room = 2 * min(middle, WIDTH - middle)
    body.append(svg.text(middle, bottom + 34, fit(label, room, size=6), kind="label"))
    return body


def _labels(labels: Sequence[str], step: float, width: float) -> list[str]:
    """The rows' labels, every other row on a stripe."""
    body: list[str] = []
    for row, label in enumerate(labels):
        if row % 2:
            body.append(f'<rect x="0" y="{TOP + step * row}" width="{WIDTH}" height="{step}" class="stripe"/>')
        body.append(row_label(width, TOP + step * (row + 0.5) + 4, label, width))
    return body
