"""The charts of an evaluation report on the weights' surroundings: pictures, cuts, linear paths, sharpness."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from rlmerge.evaluate.landscape.loss import Barrier, Grid, Landscape, Picture, Sharpness
from rlmerge.report import svg
from rlmerge.report.curves import Curve, Point, curve_plot
from rlmerge.report.heat import heat_map
from rlmerge.report.rows import Dot, Dots, dot_plot
from rlmerge.report.svg import COLORS
from rlmerge.report.tables import amount, plot, table

FIELDS = (("score", "score"), ("loss", "loss, nats"))
"""What pictures show, and in which unit."""


def charts(landscape: Landscape, color: Mapping[str, int]) -> str:
    """Cuts of all pictures, the pictures themselves, barriers and sharpness; ``color`` is that of each model."""
    parts: list[str] = []
    pictures = landscape.pictures
    for task in dict.fromkeys(picture.task for picture in pictures):
        parts += [_cuts(task, [p for p in pictures if p.task == task], *field) for field in FIELDS]
    for picture in pictures:
        if len(picture.betas) > 1:
            alike = [other for other in pictures if other.task == picture.task]
            parts += [_picture(picture, *field, _range(alike, field[0])) for field in FIELDS]
    for task in dict.fromkeys(one.task for one in landscape.barriers):
        parts.append(_barriers(task, [one for one in landscape.barriers if one.task == task]))
    return "".join(parts) + _sharpness(landscape.sharpness, color)


def _grid(picture: Picture, field: str) -> Grid:
    return picture.score if field == "score" else picture.loss


def _cuts(task: str, pictures: Sequence[Picture], field: str, unit: str) -> str:
    """Along α at the β nearest to 0."""
    curves: list[Curve] = []
    for k, picture in enumerate(pictures):
        middle = min(range(len(picture.betas)), key=lambda j: abs(picture.betas[j]))
        points = [Point(a, row[middle]) for a, row in zip(picture.alphas, _grid(picture, field), strict=True)]
        curves.append(Curve(f"{picture.center} + α·τ({picture.direction})", k % COLORS, points, toggled=False))
    title = f"{task}: {field} along a task vector"
    note = "At the model plus α times another’s task vector: α = 0 is the model itself."
    chart = curve_plot(title, note, curves, x_label="α", y_label=unit, x_marks=[(0.0, ""), (1.0, "")])
    alphas = sorted({point.x for curve in curves for point in curve.points})
    lookup = [{point.x: point.y for point in curve.points} for curve in curves]
    rows = [[amount(alpha), *(amount(found.get(alpha)) for found in lookup)] for alpha in alphas]
    return plot(title, note, chart + _key(curves), table(title, ["α", *(c.name for c in curves)], rows, "names"))


def _range(pictures: Sequence[Picture], field: str) -> list[float]:
    """The lowest and highest value in any of ``pictures``, so that one colour means one value in all of them."""
    found = [value for p in pictures for row in _grid(p, field) for value in row if math.isfinite(value)]
    return [min(found), max(found)] if found else []


def _picture(picture: Picture, field: str, unit: str, within: Sequence[float]) -> str:
    center, direction, alphas, betas = picture.center, picture.direction, picture.alphas, picture.betas
    title = f"{picture.task}: {field} around {center}"
    note = f"{center} + α·τ({direction}) + β·u, with u random and as long as τ in every tensor."
    named = ((0.0, center), (1.0, f"+ τ({direction})"))
    in_view = min(betas) <= 0 <= max(betas)
    marks = [(alpha, 0.0, name) for alpha, name in named if in_view and min(alphas) <= alpha <= max(alphas)]
    values = _grid(picture, field)
    chart = heat_map(
        title,
        note,
        alphas,
        betas,
        values,
        x_label=f"α · τ({direction})",
        y_label="β · u",
        unit=unit,
        marks=marks,
        within=within,
    )
    head = ["α \\ β", *map(amount, betas)]
    rows = [[amount(alpha), *map(amount, row)] for alpha, row in zip(alphas, values, strict=True)]
    return plot(title, note, chart, table(title, head, rows))


def _barriers(task: str, barriers: Sequence[Barrier]) -> str:
    """Loss above the straight line between the ends, so that a barrier is the height of its curve."""
    curves = [
        Curve(f"{one.a} – {one.b}: barrier {amount(one.barrier)}", k % COLORS, _above(one), toggled=False)
        for k, one in enumerate(barriers)
    ]
    title = f"{task}: loss on the linear path"
    note = (
        "Loss of the weights’ mixture above the straight line between the losses of its ends; the barrier is its top."
    )
    chart = curve_plot(
        title, note, curves, x_label="share of the first model", y_label="nats above the line", references=[0.0]
    )
    rows = [[one.a, one.b, *map(amount, (one.barrier, one.loss[0], one.loss[-1]))] for one in barriers]
    head = ["first", "second", "barrier, nats", "loss at the start", "loss at the end"]
    return plot(title, note, chart + _key(curves), table(title, head, rows, "names"))


def _above(barrier: Barrier) -> list[Point]:
    """The loss over the chord; its ends are finite."""
    alphas, losses = barrier.alphas, barrier.loss
    first, last, start, end = alphas[0], alphas[-1], losses[0], losses[-1]
    slope = (end - start) / (last - first)
    return [Point(alpha, loss - start - (alpha - first) * slope) for alpha, loss in zip(alphas, losses, strict=True)]


def _sharpness(found: Sequence[Sharpness], color: Mapping[str, int]) -> str:
    if not found:
        return ""
    rows = list(dict.fromkeys((one.task, one.radius) for one in found))
    several = len({radius for _, radius in rows}) > 1
    labels = [f"{task} · {radius:g}" if several else task for task, radius in rows]
    series = [
        Dots(
            name,
            color.get(name, 0),
            [
                Dot(rows.index((one.task, one.radius)), one.mean, one.mean, one.max)
                for one in found
                if one.model == name
            ],
        )
        for name in dict.fromkeys(one.model for one in found)
    ]
    title = "Sharpness"
    sizes = ", ".join(dict.fromkeys(f"{radius:g}" for _, radius in rows))
    note = (
        f"Rise of the loss under random perturbations of {sizes} times the norm of every tensor: "
        "a dot at the mean, a line to the greatest of those tried."
    )
    chart = dot_plot(title, note, labels, series, x_label="rise of the loss, nats", references=[0.0])
    head = ["model", "task", "radius", "mean", "greatest"]
    body = [[one.model, one.task, *map(amount, (one.radius, one.mean, one.max))] for one in found]
    return plot(title, note, chart, table(title, head, body, "names"))


def _key(series: Iterable[Curve]) -> str:
    """Which mark is which, under a chart whose series are not the models of the legend."""
    items = "".join(
        f'<li><svg viewBox="0 0 14 14" aria-hidden="true" class="s{one.color}">'
        f"{svg.marker(7, 7, one.color, one.name)}</svg>{escape(one.name)}</li>"
        for one in series
    )
    return f'<ul class="key">{items}</ul>'
