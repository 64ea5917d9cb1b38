"""Figure 4: L0 by kind of tensor and by depth."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from rlmerge_lab.scaling.figures.style import Figure, Theme, canvas
from rlmerge_lab.scaling.studies.anatomy import AnatomyStudy


def figures(study: AnatomyStudy) -> tuple[Figure, ...]:
    kinds = ", ".join(f"{row.kind} {row.printed[0]:.3f} and {row.control[0]:.3f}" for row in study.rows)
    rises = ", ".join(f"{t.kind} by {100 * t.rise:.1f} points" for t in study.trends)
    alt = (
        f"Left: L0 by kind, the paper's and that of equal zeros at real sizes: {kinds}. Right: L0 by layer of 80; with "
        "a ramp "
        f"fed in it rises ({rises}), with equal zeros it is flat."
    )
    return (Figure("figure-4", "Figure 4. Sparsity by kind of tensor and depth", alt, partial(_draw, study)),)


def _draw(study: AnatomyStudy, theme: Theme) -> Any:
    with canvas(theme, panels=2, height=3.6) as (figure, (left, right)):
        place = np.arange(len(study.rows))
        series = (
            ("printed", "paper", "orange", "o"),
            ("simulated", "its means fed in", "blue", "s"),
            ("control", "equal zeros, real sizes", "grey", "D"),
        )
        for index, (field, label, colour, marker) in enumerate(series):
            mean, std = zip(*(getattr(row, field) for row in study.rows), strict=True)
            look = {"fmt": marker, "color": theme.colour(colour), "capsize": 2, "lw": 1, "label": label}
            left.errorbar(place + (index - 1) * 0.2, mean, std, **look)
        left.set_xticks(place, [row.kind for row in study.rows])
        left.set(title="a  by kind of tensor", ylabel="L0", ylim=(0.78, 1.01))
        left.legend(loc="lower right")
        for kind, colour in (("attention", "blue"), ("mlp", "green")):
            right.plot(study.by_layer[kind], color=theme.colour(colour), label=f"{kind}, ramp fed in")
            dashed = {"color": theme.colour(colour), "ls": "--", "lw": 1.1}
            right.plot(study.control_by_layer[kind], label=f"{kind}, equal zeros", **dashed)
        right.set(title="b  by depth", ylabel="L0", xlabel="layer", ylim=(0.93, 1.003))
        right.legend(loc="lower right")
    return figure
