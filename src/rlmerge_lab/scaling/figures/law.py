"""The active share 1 - s on logarithmic axes: every law is a line, and the lines disagree."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from rlmerge_lab.scaling import article, published
from rlmerge_lab.scaling.expectation import zero_share_of_gini
from rlmerge_lab.scaling.figures.style import Figure, Theme, canvas, sizes_axis
from rlmerge_lab.scaling.studies.law import LawStudy


def figures(study: LawStudy) -> tuple[Figure, ...]:
    nls, calibration = study.fit("least squares"), study.fit("calibration")
    alt = (
        f"Active share against model size, both logarithmic. The paper's fit falls with exponent {nls.law.b:.2f} to "
        f"{1 - nls.at_70:.3f} at 70B; the law through its calibration points falls with {calibration.law.b:.2f} to "
        f"{1 - calibration.at_70:.3f}, and the zeros implied by the paper's Gini lie on that line. Published "
        "checkpoints lie "
        "above both, between 0.08 and 0.64."
    )
    return (Figure("law", "The law, its points, and what they were made from", alt, partial(_draw, study)),)


def _draw(study: LawStudy, theme: Theme) -> Any:
    grid = np.geomspace(1, 405, 50)
    x = [row.billions for row in article.TABLE_1]
    with canvas(theme, height=4.2) as (figure, (axis,)):
        nls, calibration = study.fit("least squares").law, study.fit("calibration").law
        axis.plot(x, [1 - r.l0 for r in article.TABLE_1], "o", color=theme.colour("orange"), label="1 − L0, paper")
        fitted = f"least squares: ${nls.a:.3f}\\,N^{{-{nls.b:.3f}}}$"
        axis.plot(grid, 1 - nls(grid), color=theme.colour("orange"), label=fitted)
        implied = [1 - zero_share_of_gini(r.gini) for r in article.TABLE_1]
        axis.plot(x, implied, "s", color=theme.colour("blue"), label="non-zeros implied by the paper's Gini")
        through = f"through the calibration points: ${calibration.a:.3f}\\,N^{{-{calibration.b:.3f}}}$"
        axis.plot(grid, 1 - calibration(grid), color=theme.colour("blue"), label=through)
        for index, m in enumerate(published.MEASURED):
            label = "changed weights of real checkpoints (bf16)" if index == 0 else None
            bar = {"color": theme.colour("purple"), "lw": 1.6, "marker": "_", "ms": 7, "label": label}
            axis.plot([m.billions] * 2, [1 - m.low, 1 - m.high], **bar)
        if study.measured:
            own = {"marker": "D", "ls": "", "color": theme.colour("green"), "label": "your checkpoints"}
            axis.plot([m.billions for m in study.measured], [1 - m.sparsity for m in study.measured], **own)
        sizes_axis(axis)
        axis.set(yscale="log", ylabel="active share, 1 − s")
        axis.set_yticks((0.001, 0.01, 0.1, 1), ("0.1 %", "1 %", "10 %", "100 %"))
        # Room for the legend below the lines, which all fall to the right.
        axis.set_ylim(1e-4 if theme.narrow else 1e-3, 1)
        axis.legend(loc="lower left")
    return figure
