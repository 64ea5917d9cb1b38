"""Figure 5: overlap between agents across scales."""

from __future__ import annotations

from functools import partial
from typing import Any

from rlmerge_lab.scaling.figures.style import Figure, Theme, canvas, sizes_axis
from rlmerge_lab.scaling.studies.agents import AgentsStudy


def figures(study: AgentsStudy) -> tuple[Figure, ...]:
    first, last = study.independent[0], study.independent[-1]
    alt = (
        f"Left: Jaccard falls from {first.jaccard:.2f} at 1B to {last.jaccard:.2f} at 405B towards 1/9, which disjoint "
        "supports "
        f"have at every size; chance alone gives {first.jaccard_chance:.2f} to {last.jaccard_chance:.2f}; the cosine "
        "is zero "
        f"within its null. Right: the unique share rises from {first.unique:.2f} to {last.unique:.2f}, the rest is "
        "shared."
    )
    return (Figure("figure-5", "Figure 5. Overlap between simulated agents", alt, partial(_draw, study)),)


def _draw(study: AgentsStudy, theme: Theme) -> Any:
    rows = study.independent
    x = [row.billions for row in rows]
    with canvas(theme, panels=2, height=3.4) as (figure, (left, right)):
        left.plot(x, [r.jaccard for r in rows], "o-", color=theme.colour("orange"), label="Jaccard, own parts random")
        left.plot(x, [r.jaccard for r in study.disjoint], "s-", color=theme.colour("green"), label="Jaccard, disjoint")
        left.plot(x, [r.jaccard_chance for r in rows], "--", color=theme.colour("grey"), label="Jaccard by chance")
        null = [2 * r.cosine_null_std for r in rows]
        cosine = {"fmt": ".", "color": theme.colour("blue"), "lw": 1, "label": "cosine ± 2 null deviations"}
        left.errorbar(x, [r.cosine for r in rows], null, **cosine)
        left.set(title="a  similarity", ylim=(-0.05, 0.36 if theme.narrow else 0.34))
        left.legend(loc="upper right")
        right.stackplot(
            x,
            [r.unique for r in rows],
            [r.shared for r in rows],
            colors=[theme.colour("blue"), theme.colour("orange")],
            labels=["one agent only", "two agents or more"],
            alpha=0.85,
        )
        right.set(title="b  who shares the active positions", ylabel="share of active positions", ylim=(0, 1))
        right.legend(loc="lower center", frameon=True, facecolor=theme.paper, edgecolor="none")
        sizes_axis(left)
        sizes_axis(right)
    return figure
