"""Pictures of lines and dots whose tables of numbers and keys follow from what is drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rlmerge.report import svg
from rlmerge.report.axes import axis, frame
from rlmerge.report.curves import Curve, Point, curve_plot
from rlmerge.report.rows import Dot, Dots, dot_plot
from rlmerge.report.svg import BOTTOM, LEFT, RIGHT, TOP, WIDTH
from rlmerge.report.tables import interval_text

from .parts import Legend, Picture, Sheet

_HEIGHT = 300


def curve(name: str, color: int, points: Iterable[Sequence[float]], *, dashed: bool = False) -> Curve:
    """A curve through points (x, y), or (x, y, half) for a band of ``half`` on each side."""
    drawn = [Point(x, y, *((y - half[0], y + half[0]) if half else ())) for x, y, *half in points]
    return Curve(name, color, drawn, dashed)


def lines(
    key: str,
    title: str,
    note: str,
    curves: Sequence[Curve],
    *,
    x_label: str,
    y_label: str,
    percent: bool = False,
    log: str = "",
    references: Sequence[float] = (),
    x_marks: Sequence[tuple[float, str]] = (),
    whole_x: bool = False,
) -> Picture:
    """Curves with bands over an axis, of which ``x`` or both, ``xy``, may be logarithmic: ``log``."""
    if log == "xy":
        drawn = _both_logarithmic(title, note, curves, x_label, y_label, percent)
    else:
        drawn = curve_plot(
            title,
            note,
            curves,
            x_label=x_label,
            y_label=y_label,
            percent=percent,
            log_x=log == "x",
            whole_x=whole_x,
            references=references,
            x_marks=x_marks,
            height=_HEIGHT,
        )
    rows = [
        [curve.name, f"{p.x:.4g}", interval_text(p.y, p.low, p.high, percent)] for curve in curves for p in curve.points
    ]
    return Picture(key, title, note, drawn, Sheet(title, ["series", x_label, y_label], rows), _names(curves))


def dots(
    key: str,
    title: str,
    note: str,
    labels: Sequence[str],
    series: Sequence[Dots],
    *,
    x_label: str,
    percent: bool = False,
    references: Sequence[float] = (),
    label_width: int = 132,
) -> Picture:
    """A row for each label, in it a dot with its interval for every series."""
    drawn = dot_plot(
        title, note, labels, series, x_label=x_label, percent=percent, references=references, label_width=label_width
    )
    cells = [["–"] * len(series) for _ in labels]
    for column, one in enumerate(series):
        for dot in one.dots:
            cells[dot.row][column] = interval_text(dot.value, dot.low, dot.high, percent)
    rows = [[label, *row] for label, row in zip(labels, cells, strict=True)]
    return Picture(key, title, note, drawn, Sheet(title, ["", *(one.name for one in series)], rows), _names(series))


def spread(row: int, mean: float, std: float) -> Dot:
    """A mean with a standard deviation on each side."""
    return Dot(row, mean, mean - std, mean + std)


def _both_logarithmic(title: str, note: str, curves: Sequence[Curve], x_label: str, y_label: str, percent: bool) -> str:
    """Curves over two logarithmic axes, where a power law is a line; every value must be positive."""
    points = [(p.x, p.y) for curve in curves for p in curve.points if p.y is not None]
    x = axis([], LEFT + 8, WIDTH - RIGHT - 8, log=True, within=[x for x, _ in points], pad=0.02)
    y = axis([y for _, y in points], _HEIGHT - BOTTOM, TOP, log=True, percent=percent)
    body = frame(x, y, x_label, y_label)
    for curve in curves:
        body.append(svg.group(curve.color))
        placed = [(x(p.x), y(p.y), f"{curve.name}, {x.text(p.x)}: {y.text(p.y)}") for p in curve.points if p.y]
        path = "M" + "L".join(f"{across} {up}" for across, up, _ in placed)
        body.append(f'<path d="{path}" class="line{" dashed" if curve.dashed else ""}"/>')
        body += [svg.marker(across, up, curve.color, words, 3.6) for across, up, words in placed]
        body.append("</g>")
    return svg.figure(_HEIGHT, title, note, body)


def _names(series: Iterable[Curve | Dots]) -> Legend:
    return tuple(dict.fromkeys((one.name, one.color) for one in series if one.name))
