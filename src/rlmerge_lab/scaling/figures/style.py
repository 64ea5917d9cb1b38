"""How every figure looks: a theme for paper, for dark pages, and for narrow screens; one colour a meaning."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rlmerge_lab.scaling.extra import need


@dataclass(frozen=True, slots=True)
class Theme:
    """``narrow`` stacks panels for a phone; ``dark`` swaps ink and paper and lightens the colours."""

    dark: bool = False
    narrow: bool = False

    @property
    def ink(self) -> str:
        return "#e6e6e3" if self.dark else "#1f2328"

    @property
    def muted(self) -> str:
        return "#9a9a94" if self.dark else "#6a6f76"

    @property
    def grid(self) -> str:
        return "#3a3d42" if self.dark else "#dfe2e6"

    @property
    def paper(self) -> str:
        return "#16181c" if self.dark else "#ffffff"

    def colour(self, name: str) -> str:
        """Okabe and Ito's palette, told apart with colour-blind eyes; lightened where a dark page needs it."""
        light, dark = _PALETTE[name]
        return dark if self.dark else light


_PALETTE = {
    "blue": ("#0072b2", "#56b4e9"),
    "orange": ("#d55e00", "#f0914a"),
    "green": ("#00805e", "#2fc49c"),
    "purple": ("#a6548a", "#d98fbe"),
    "yellow": ("#a87400", "#f0c75e"),
    "grey": ("#7a7f87", "#a3a8b0"),
}

METHOD_COLOURS = {
    "Simple Avg": "grey",
    "TIES": "green",
    "DARE": "yellow",
    "RAM": "orange",
    "RAM, strict mask": "purple",
    "RAM, authors' rule": "blue",
}


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure that can be drawn in any theme. ``alt`` says in words what it shows, from the data."""

    name: str
    title: str
    alt: str
    draw: Callable[[Theme], Any]


@contextmanager
def canvas(theme: Theme, panels: int = 1, height: float = 3.2) -> Generator[tuple[Any, list[Any]]]:
    """A matplotlib Figure and its ``panels`` axes: side by side, or stacked when narrow. No global state is touched."""
    matplotlib, figures = need("matplotlib"), need("matplotlib.figure")
    rows, columns = (panels, 1) if theme.narrow else (1, panels)
    size = (4.2, 3.0 * rows) if theme.narrow else (8.4, height)
    with matplotlib.rc_context(_settings(theme)):
        figure = figures.Figure(figsize=size, layout="constrained")
        yield figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def _settings(theme: Theme) -> dict[str, Any]:
    return {
        "figure.facecolor": theme.paper,
        "axes.facecolor": theme.paper,
        "savefig.facecolor": theme.paper,
        "text.color": theme.ink,
        "axes.labelcolor": theme.ink,
        "axes.titlecolor": theme.ink,
        "axes.edgecolor": theme.muted,
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
        "xtick.labelcolor": theme.ink,
        "ytick.labelcolor": theme.ink,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": theme.grid,
        "grid.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.labelsize": 9,
        "xtick.labelsize": 8.5,
        "ytick.labelsize": 8.5,
        "legend.fontsize": 8,
        "legend.frameon": False,
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "lines.linewidth": 1.6,
        "lines.markersize": 4.5,
    }


def sizes_axis(axis: Any) -> None:
    """A logarithmic axis of model sizes with readable ticks."""
    axis.set_xscale("log")
    ticks = (1, 3, 7, 14, 32, 70, 200, 405)
    axis.set_xticks(ticks, [f"{tick}" for tick in ticks])
    axis.set_xticks([], minor=True)
    axis.set_xlabel("model size, billions of parameters")
