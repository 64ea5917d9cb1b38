"""Figure 1: L0 and Gini against model size."""

from __future__ import annotations

from functools import partial
from typing import Any

from rlmerge_lab.scaling import article, published
from rlmerge_lab.scaling.expectation import gini_of_zero_share
from rlmerge_lab.scaling.figures.style import Figure, Theme, canvas, sizes_axis
from rlmerge_lab.scaling.studies.sparsity import SparsityStudy


def figures(study: SparsityStudy) -> tuple[Figure, ...]:
    first, last = study.rows[0], study.rows[-1]
    alt = (
        f"Two panels over model size from 1B to 405B. Left: our L0 rises from {first.l0.mean:.3f} to "
        f"{last.l0.mean:.3f} on the "
        f"paper's points, while the share of zeros fed in rises from {first.fed:.3f} to {last.fed:.3f}, well below, "
        "and "
        "published measurements of real checkpoints scatter from 0.36 to 0.92. Right: our Gini, the paper's Gini and "
        "the "
        "closed form for the zeros fed in coincide."
    )
    return (Figure("figure-1", "Figure 1. Sparsity metrics against model size", alt, partial(_draw, study)),)


def _draw(study: SparsityStudy, theme: Theme) -> Any:
    x = [row.billions for row in study.rows]
    with canvas(theme, panels=2, height=3.6) as (figure, (left, right)):
        paper = {"fmt": "o", "color": theme.colour("orange"), "capsize": 2, "linewidth": 1, "label": "L0, paper"}
        left.errorbar(x, [r.l0 for r in article.TABLE_1], [r.l0_std for r in article.TABLE_1], **paper)
        left.plot(x, [r.l0.mean for r in study.rows], color=theme.colour("blue"), label="L0, ours")
        left.plot(x, [r.fed for r in study.rows], color=theme.colour("grey"), ls="--", label="zeros fed in")
        stars = {"marker": "*", "ls": "", "ms": 11, "color": theme.colour("yellow"), "label": "calibration points"}
        left.plot(*zip(*article.CALIBRATION, strict=True), **stars)
        for index, m in enumerate(published.MEASURED):
            label = "real checkpoints (bf16)" if index == 0 else None
            bar = {"color": theme.colour("purple"), "lw": 1.5, "marker": "_", "ms": 6, "label": label}
            left.plot([m.billions] * 2, [m.low, m.high], **bar)
        left.set(title="a  L0 reads far above the zeros fed in", ylabel="share", ylim=(0.3, 1.03))
        left.legend(loc="lower right")
        right.errorbar(
            x, [r.gini for r in article.TABLE_1], [r.gini_std for r in article.TABLE_1], **(paper | {"label": "paper"})
        )
        right.plot(x, [r.gini.mean for r in study.rows], color=theme.colour("blue"), label="ours")
        closed = [gini_of_zero_share(r.fed) for r in study.rows]
        right.plot(x, closed, color=theme.ink, ls=":", label="closed form of the zeros fed in")
        right.set(title="b  Gini shows what was fed in", ylabel="Gini of |τ|")
        right.legend(loc="lower right")
        sizes_axis(left)
        sizes_axis(right)
    return figure
