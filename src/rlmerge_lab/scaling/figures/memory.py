"""Figure 6: peak memory by model size."""

from __future__ import annotations

from functools import partial
from typing import Any

from rlmerge_lab.scaling import article
from rlmerge_lab.scaling.figures.style import Figure, Theme, canvas, sizes_axis
from rlmerge_lab.scaling.studies.memory import MemoryStudy


def figures(study: MemoryStudy) -> tuple[Figure, ...]:
    model = next(m for m in study.models if m.name == "Llama-3.1-70B")
    alt = (
        "Peak memory against model size, both logarithmic. Loading every model grows with its size, "
        f"{model.naive:.0f} GB at 70B. Equation 6 follows the largest tensor of real models, {model.equation_6:.1f} GB "
        "at 70B, "
        f"above the paper's printed 6 GB. rlmerge's planned budget is flat at {model.planned:.2f} GB."
    )
    return (Figure("figure-6", "Figure 6. Peak memory to merge three agents", alt, partial(_draw, study)),)


def _draw(study: MemoryStudy, theme: Theme) -> Any:
    models = sorted(study.models, key=lambda m: m.parameters)
    x = [m.parameters / 1e9 for m in models]
    with canvas(theme, height=3.8) as (figure, (axis,)):
        axis.plot(x, [m.naive for m in models], "o-", color=theme.colour("grey"), label="every model in memory")
        axis.plot(x, [m.equation_6 for m in models], "s", color=theme.colour("orange"), label="equation 6, real shapes")
        printed = {"marker": "x", "ls": "--", "color": theme.colour("yellow"), "label": "the paper's stream column"}
        axis.plot([r.billions for r in article.TABLE_4], [r.stream for r in article.TABLE_4], **printed)
        axis.plot(x, [m.planned for m in models], "D-", color=theme.colour("blue"), label="rlmerge's budget, planned")
        sizes_axis(axis)
        axis.set_xlim(2.5, 480)
        axis.set(yscale="log", ylabel="GB")
        axis.set_yticks((1, 10, 100, 1000), ("1", "10", "100", "1000"))
        axis.set_ylim(top=6e4 if theme.narrow else None)
        axis.legend(loc="upper left")
    return figure
