"""One verdict or one figure in a line, with its interval, its test, and what stands beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rlmerge.report.tables import amount, interval_text

Result = Mapping[str, Any]

MARKS = {"supported": "✓", "not supported": "✗", "undecided here": "·"}
LEVELS = {"supported": "good", "not supported": "problem", "undecided here": "info"}

SHOWN_BESIDE = 4
"""Figures beside a verdict that are listed one by one; of more, only how they came out."""


def difference(figure: Result) -> str:
    """``3.0 points [1.0, 5.0] (n = 5)``: the figure with its interval."""
    value, low, high = figure["value"], figure["low"], figure["high"]
    if value is None:
        return f"not known ({figure['empty']})"
    if figure["unit"] != "share":
        return f"{interval_text(value, low, high)} (n = {figure['n']})"
    points = [None if end is None else 100 * end for end in (value, low, high)]
    shown = f"{_points(points[0])} points"
    if points[1] is not None and points[2] is not None:
        shown += f" [{_points(points[1])}, {_points(points[2])}]"
    return f"{shown} (n = {figure['n']})"


def _points(value: float | None) -> str:
    if value is None:
        return "–"
    shown = f"{value:.1f}" if abs(value) < 99.95 else f"{value:.0f}"
    return shown.removeprefix("-") if float(shown) == 0 else shown.replace("-", "−")


def figure_line(figure: Result) -> str:
    """A figure in full: name, difference, the two means, claimed side, margin, p."""
    text = f"{figure['name']}: {difference(figure)}"
    if figure["a"] is not None and figure["b"] is not None:
        percent = figure["unit"] == "share"
        text += f", means {amount(figure['a'], percent)} and {amount(figure['b'], percent)}"
    return text


def claimed_line(figure: Result) -> str:
    """What was claimed of a figure, and the test: margin, p, and p after Holm."""
    margin = f"{100 * figure['margin']:g} points" if figure["unit"] == "share" else f"{figure['margin']:.3g}"
    text = f"claimed {figure['claimed']}, margin ±{margin}"
    if figure["p"] is not None:
        text += f", p = {probability(figure['p'])}"
    return text + (f", after Holm {probability(figure['p_holm'])}" if figure["p_holm"] is not None else "")


def control_line(figure: Result) -> str:
    """Whether a control held two things equal, as far as the seeds can tell."""
    held = {"supported": "equal by the margin", "not supported": "not equal", "undecided here": "not shown to be equal"}
    return f"{figure_line(figure)}: {held[figure['outcome']]}"


def probability(p: float) -> str:
    """A p value with two digits, none below 0.0001."""
    return "<0.0001" if p < 0.0001 else f"{p:.2g}"


def beside_lines(verdict: Result) -> list[str]:
    """The figures beside a verdict: each, or of many how they came out by the same rule."""
    beside = [figure for figure in verdict["beside"] if figure["value"] is not None]
    if len(beside) <= SHOWN_BESIDE:
        return [f"{figure_line(figure)}, {figure['outcome']}" for figure in beside]
    single = [figure for figure in beside if figure["name"].startswith("gain kept, ")]
    others = [f"{figure_line(figure)}, {figure['outcome']}" for figure in beside if figure not in single]
    if len(single) <= SHOWN_BESIDE:
        return [*others, *(f"{figure_line(figure)}, {figure['outcome']}" for figure in single)]
    counts = Counter(figure["outcome"] for figure in single)
    spread = ", ".join(f"{counts[name]} {name}" for name in MARKS if counts[name])
    return [*others, f"gain kept, {len(single)} comparisons one by one: {spread}"]


def adjusted(verdict: Result) -> str:
    """The verdict, and what becomes of it among all comparisons."""
    if verdict["verdict"] == verdict["adjusted"]:
        return str(verdict["verdict"])
    return f"{verdict['verdict']} (among all comparisons: {verdict['adjusted']})"
