"""Axes for any numbers: negative ones, tiny ones, on a logarithmic scale; and labels of rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import TypeGuard

from rlmerge.frozen import frozen
from rlmerge.report import svg
from rlmerge.report.svg import Scale
from rlmerge.text import fit

MINUS = "−"


@frozen(slots=True)
class Axis:
    """A map from [low, high] to SVG units, linear or logarithmic, and how its values are written.

    ``percent`` writes 0.25 as ``25 %``, ``spelled`` any value in its own way; ``whole`` marks integers alone. Values
    outside are moved to the nearer end.
    """

    low: float
    high: float
    start: float
    end: float
    percent: bool = False
    log: bool = False
    whole: bool = False
    spelled: Callable[[float], str] | None = None

    def __call__(self, value: float) -> float:
        value = min(max(value, self.low), self.high)
        if self.log:
            return Scale(math.log10(self.low), math.log10(self.high), self.start, self.end)(math.log10(value))
        return Scale(self.low, self.high, self.start, self.end)(value)

    def ticks(self, count: int = 5) -> list[float]:
        """Round values to mark; 1, 2 and 5 times powers of ten on a logarithmic axis, thinned to about ``count``."""
        if self.whole:
            found = [value for value in svg.ticks(self.low, self.high, count) if value == int(value)]
            return found or [math.ceil(self.low)]
        if not self.log:
            return svg.ticks(self.low, self.high, count)
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for steps in ((1, 2, 5), (1, 3), (1,)):
            found = [m * 10.0**p for p in powers for m in steps if self.low <= m * 10.0**p <= self.high]
            if len(found) <= count + 1:
                break
        return found[:: max(1, math.ceil(len(found) / (count + 1)))] if len(found) > 1 else [self.low, self.high]

    def text(self, value: float) -> str:
        """A tick's label."""
        if self.spelled is not None:
            return self.spelled(value)
        number = round(100 * value if self.percent else value, 10)
        shown = (f"{number:,.0f}" if 1e4 <= abs(number) < 1e9 else f"{number:.4g}").replace("-", MINUS)
        return f"{shown} %" if self.percent else shown


def axis(
    values: Iterable[float],
    start: float,
    end: float,
    *,
    percent: bool = False,
    log: bool = False,
    whole: bool = False,
    spelled: Callable[[float], str] | None = None,
    within: Sequence[float] = (),
    pad: float = 0.06,
) -> Axis:
    """The axis that holds all finite ``values`` with a margin, and the values of ``within`` without one.

    ValueError when nothing is finite, or not positive where ``log`` asks for a logarithm.
    """
    found = [value for value in values if math.isfinite(value)]
    everything = [*found, *within]
    if not everything or (log and min(everything) <= 0):
        raise ValueError("an axis needs finite values, and positive ones for a logarithm")
    low, high = min(everything), max(everything)
    if log:
        margin = (high / low) ** pad if high > low else 2.0
        return Axis(low / margin, high * margin, start, end, percent, log)
    margin = pad * (high - low) or abs(high) * 0.1 or 0.01
    kept = within if high > low else ()
    low -= 0.0 if low in kept else margin
    high += 0.0 if high in kept else margin
    return Axis(low, high, start, end, percent, whole=whole, spelled=spelled)


def frame(x: Axis, y: Axis, x_label: str, y_label: str) -> list[str]:
    """Grid lines, ticks and labels of a chart with two axes; ``y.start`` is the bottom."""
    body = [svg.line(x.start - 8, y(value), x.end + 8, y(value), "grid") for value in y.ticks()]
    body += [svg.text(x.start - 14, y(value) + 4, y.text(value), "end") for value in y.ticks()]
    body += [svg.text(x(value), y.start + 15, x.text(value)) for value in x.ticks(6)]
    body.append(svg.text((x.start + x.end) / 2, y.start + 34, x_label, kind="label"))
    middle = round((y.start + y.end) / 2)
    body.append(f'<text transform="translate(9 {middle}) rotate(-90)" class="label">{escape(fit(y_label, 250))}</text>')
    return body


def row_label(x: float, y: float, label: str, units: float) -> str:
    """A row's label that ends at ``x``, cut to ``units``; the whole of it is its tooltip."""
    return (
        f'<text x="{x}" y="{y:g}" text-anchor="end" class="row">{escape(fit(label, units, size=8))}'
        f"<title>{escape(label)}</title></text>"
    )


def finite(value: float | None) -> TypeGuard[float]:
    """Whether there is a value to draw."""
    return value is not None and math.isfinite(value)
