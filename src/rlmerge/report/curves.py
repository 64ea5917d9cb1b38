"""Lines with bands: values over an axis, each with the interval around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rlmerge.frozen import frozen
from rlmerge.report import svg
from rlmerge.report.axes import axis, finite, frame
from rlmerge.report.svg import BOTTOM, LEFT, RIGHT, TOP, WIDTH
from rlmerge.report.tables import interval_text
from rlmerge.text import fit


@frozen(slots=True)
class Point:
    """A value at ``x`` with its interval, if it has one."""

    x: float
    y: float | None
    low: float | None = None
    high: float | None = None


@frozen(slots=True)
class Curve:
    """Points of one series in the order of their x; points without a finite value are gaps.

    ``color`` is its number, whose button in the legend hides it if ``toggled``.
    """

    name: str
    color: int
    points: Sequence[Point]
    dashed: bool = False
    toggled: bool = True


def curve_plot(
    title: str,
    description: str,
    curves: Sequence[Curve],
    *,
    x_label: str,
    y_label: str,
    percent: bool = False,
    log_x: bool = False,
    whole_x: bool = False,
    x_text: Callable[[float], str] | None = None,
    references: Sequence[float] = (),
    within: Sequence[float] = (),
    x_marks: Sequence[tuple[float, str]] = (),
    height: int = 260,
    markers: bool = True,
) -> str:
    """A line chart with interval bands.

    ``references`` are dashed y values; they and the values of ``within`` are always in view. ``x_marks`` name places on
    x. With ``log_x`` points at x ≤ 0 are left out; ``whole_x`` marks integers on x alone, ``x_text`` spells its values.
    """
    found = [p for c in curves for p in c.points if finite(p.y) and (p.x > 0 or not log_x)]
    if not found:
        return svg.nothing(title, description)
    top = TOP + (14 if x_marks else 0)
    places = [mark for mark, _ in x_marks if mark > 0 or not log_x]
    at = [*(p.x for p in found), *places]
    x = axis([], LEFT + 8, WIDTH - RIGHT - 8, log=log_x, whole=whole_x, spelled=x_text, within=at, pad=0.02)
    heights = [v for p in found for v in (p.y, p.low, p.high) if v is not None]
    y = axis([*heights, *references], height - BOTTOM, top, percent=percent, within=within)
    body = frame(x, y, x_label, y_label)
    body += [svg.line(x.start - 8, y(value), x.end + 8, y(value), "reference") for value in references]
    for mark, name in x_marks:
        body.append(svg.line(x(mark), top, x(mark), y.start, "landmark"))
        body.append(svg.text(x(mark), top - 5, fit(name, 110)))
    for curve in curves:
        drawn = [p for p in curve.points if p.x > 0 or not log_x]
        runs = _runs(drawn)
        body.append(svg.group(curve.color, curve.toggled))
        for run in runs:
            banded = [(p.x, p.low, p.high) for p in run if finite(p.low) and finite(p.high)]
            if len(banded) > 1:
                up = "L".join(f"{x(place)} {y(high)}" for place, _, high in banded)
                down = "L".join(f"{x(place)} {y(low)}" for place, low, _ in reversed(banded))
                body.append(f'<path d="M{up}L{down}Z" class="band"/>')
        for run in runs:
            path = "M" + "L".join(f"{x(p.x)} {y(p.y)}" for p in run if p.y is not None)
            body.append(f'<path d="{path}" class="line{" dashed" if curve.dashed else ""}"/>')
        size = 3.6 if markers and len(drawn) <= 24 else 2.0
        for p in (p for run in runs for p in run):
            if p.y is not None:
                words = f"{curve.name}, {x.text(p.x)}: {interval_text(p.y, p.low, p.high, percent)}"
                body.append(svg.marker(x(p.x), y(p.y), curve.color, words, size))
        body.append("</g>")
    return svg.figure(height, title, description, body)


def _runs(points: Sequence[Point]) -> list[list[Point]]:
    """The stretches of points that have a value."""
    runs: list[list[Point]] = [[]]
    for point in points:
        if finite(point.y):
            runs[-1].append(point)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]
