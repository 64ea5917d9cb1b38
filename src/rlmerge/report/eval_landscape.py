"""The charts of an evaluation report on the weights' surroundings: pictures, cuts, linear paths, sharpness."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from . import svg
from .curves import Curve, Point, curve_plot
from .dots import Dot, Dots, dot_plot
from .heat import heat_map
from .tables import amount, plot, table

Result = Mapping[str, Any]

COLORS = 12
FIELDS = (("score", "score"), ("loss", "loss, nats"))


def charts(landscape: Result, color: Mapping[str, int]) -> str:
    """Cuts of all pictures, the pictures themselves, barriers and sharpness; ``color`` is that of each model."""
    parts: list[str] = []
    pictures = landscape["pictures"]
    for task in dict.fromkeys(picture["task"] for picture in pictures):
        parts += [_cuts(task, [p for p in pictures if p["task"] == task], *field) for field in FIELDS]
    for picture in pictures:
        if len(picture["betas"]) > 1:
            parts += [_picture(picture, *field, _range(pictures, picture["task"], field[0])) for field in FIELDS]
    barriers = landscape["barriers"]
    for task in dict.fromkeys(one["task"] for one in barriers):
        parts.append(_barriers(task, [one for one in barriers if one["task"] == task]))
    return "".join(parts) + _sharpness(landscape["sharpness"], color)


def _cuts(task: str, pictures: Sequence[Result], field: str, unit: str) -> str:
    """Along α at the β nearest to 0."""
    curves: list[Curve] = []
    for k, picture in enumerate(pictures):
        middle = _nearest_zero(picture["betas"])
        points = [Point(a, row[middle]) for a, row in zip(picture["alphas"], picture[field], strict=True)]
        curves.append(Curve(f"{picture['center']} + α·τ({picture['direction']})", k % COLORS, points, toggled=False))
    title = f"{task}: {field} along a task vector"
    note = "At the model plus α times another’s task vector: α = 0 is the model itself."
    chart = curve_plot(title, note, curves, x_label="α", y_label=unit, x_marks=[(0.0, ""), (1.0, "")])
    alphas = sorted({point.x for curve in curves for point in curve.points})
    lookup = [{point.x: point.y for point in curve.points} for curve in curves]
    rows = [[amount(alpha), *(amount(found.get(alpha)) for found in lookup)] for alpha in alphas]
    return plot(title, note, chart + _key(curves), table(title, ["α", *(c.name for c in curves)], rows, "names"))


def _range(pictures: Sequence[Result], task: str, field: str) -> list[float]:
    """The lowest and highest value in any picture of the task, so that one colour means one value in all of them."""
    found = [v for p in pictures if p["task"] == task for row in p[field] for v in row if v is not None]
    return [min(found), max(found)] if found else []


def _picture(picture: Result, field: str, unit: str, within: Sequence[float]) -> str:
    center, direction = picture["center"], picture["direction"]
    title = f"{picture['task']}: {field} around {center}"
    note = f"{center} + α·τ({direction}) + β·u, with u random and as long as τ in every tensor."
    marks = [
        (alpha, 0.0, name) for alpha, name in ((0.0, center), (1.0, f"+ τ({direction})")) if _inside(picture, alpha)
    ]
    alphas, betas, values = picture["alphas"], picture["betas"], picture[field]
    x_label = f"α · τ({direction})"
    chart = heat_map(
        title, note, alphas, betas, values, x_label=x_label, y_label="β · u", unit=unit, marks=marks, within=within
    )
    head = ["α \\ β", *(amount(beta) for beta in betas)]
    rows = [[amount(alpha), *(amount(value) for value in row)] for alpha, row in zip(alphas, values, strict=True)]
    return plot(title, note, chart, table(title, head, rows))


def _inside(picture: Result, alpha: float) -> bool:
    alphas, betas = picture["alphas"], picture["betas"]
    return min(alphas) <= alpha <= max(alphas) and min(betas) <= 0 <= max(betas)


def _barriers(task: str, barriers: Sequence[Result]) -> str:
    """Loss above the straight line between the ends, so that a barrier is the height of its curve."""
    curves = [
        Curve(f"{one['a']} – {one['b']}: barrier {amount(one['barrier'])}", k % COLORS, _above(one), toggled=False)
        for k, one in enumerate(barriers)
    ]
    title = f"{task}: loss on the linear path"
    note = (
        "Loss of the weights’ mixture above the straight line between the losses of its ends; the barrier is its top."
    )
    chart = curve_plot(
        title, note, curves, x_label="share of the first model", y_label="nats above the line", references=[0.0]
    )
    rows = [
        [one["a"], one["b"], amount(one["barrier"]), *(amount(end) for end in (one["loss"][0], one["loss"][-1]))]
        for one in barriers
    ]
    head = ["first", "second", "barrier, nats", "loss at the start", "loss at the end"]
    return plot(title, note, chart + _key(curves), table(title, head, rows, "names"))


def _above(barrier: Result) -> list[Point]:
    alphas, losses = barrier["alphas"], barrier["loss"]
    first, last, start, end = alphas[0], alphas[-1], losses[0], losses[-1]
    if start is None or end is None or last == first:
        return []
    return [
        Point(alpha, None if loss is None else loss - start - (alpha - first) / (last - first) * (end - start))
        for alpha, loss in zip(alphas, losses, strict=True)
    ]


def _sharpness(found: Sequence[Result], color: Mapping[str, int]) -> str:
    if not found:
        return ""
    rows = list(dict.fromkeys((one["task"], one["radius"]) for one in found))
    several = len({radius for _, radius in rows}) > 1
    labels = [f"{task} · {radius:g}" if several else task for task, radius in rows]
    series = [
        Dots(
            name,
            color.get(name, 0),
            [
                Dot(rows.index((one["task"], one["radius"])), one["mean"], one["mean"], one["max"])
                for one in found
                if one["model"] == name
            ],
        )
        for name in dict.fromkeys(one["model"] for one in found)
    ]
    title = "Sharpness"
    sizes = ", ".join(dict.fromkeys(f"{radius:g}" for _, radius in rows))
    note = (
        f"Rise of the loss under random perturbations of {sizes} times the norm of every tensor: "
        "a dot at the mean, a line to the greatest of those tried."
    )
    chart = dot_plot(title, note, labels, series, x_label="rise of the loss, nats", references=[0.0])
    head = ["model", "task", "radius", "mean", "greatest"]
    body = [[one["model"], one["task"], *(amount(one[key]) for key in ("radius", "mean", "max"))] for one in found]
    return plot(title, note, chart, table(title, head, body, "names"))


def _key(series: Iterable[Curve]) -> str:
    """Which mark is which, under a chart whose series are not the models of the legend."""
    items = "".join(
        f'<li><svg viewBox="0 0 14 14" aria-hidden="true" class="s{one.color}">'
        f"{svg.marker(7, 7, one.color, one.name)}</svg>{escape(one.name)}</li>"
        for one in series
    )
    return f'<ul class="key">{items}</ul>'


def _nearest_zero(betas: Sequence[float]) -> int:
    return min(range(len(betas)), key=lambda j: abs(betas[j]))
