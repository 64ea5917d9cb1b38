"""Figures 2 and 3: merge quality by method and against sparsity, with retention beside the paper's cosine."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from rlmerge_lab.scaling import article
from rlmerge_lab.scaling.figures.style import METHOD_COLOURS, Figure, Theme, canvas
from rlmerge_lab.scaling.merging import MERGERS
from rlmerge_lab.scaling.studies.merge import MergeStudy

TOP = 0.95


def figures(study: MergeStudy) -> tuple[Figure, ...]:
    score = study.score
    bars = (
        "Two panels of bars for six methods at 80, 90 and 95 % sparsity. Cosine to the oracle: averaging 1 everywhere, "
        f"RAM {score('RAM', 0.8).cosine:.2f} at 80 % and exactly 1 above, DARE about 0.3. Retention: averaging 0.33, "
        "RAM "
        f"{score('RAM', 0.8).retention:.2f} at 80 % and 0.33 above, RAM with a strict mask 1.5, the authors' RAM 1.0."
    )
    lines = (
        "Two panels against sparsity from 60 to 97 %. RAM's cosine lies below averaging until 90 %, then equals it. "
        "RAM's "
        f"advantage over averaging is negative, {score('RAM', 0.6).cosine - 1:.2f} at 60 %, and jumps to zero at 90 %, "
        "where its mask becomes all true; it never is positive."
    )
    return (
        Figure("figure-2", "Figure 2. Merge quality by method", bars, partial(_bars, study)),
        Figure("figure-3", "Figure 3. RAM's advantage against sparsity", lines, partial(_lines, study)),
    )


def _bars(study: MergeStudy, theme: Theme) -> Any:
    with canvas(theme, panels=2, height=3.6) as (figure, axes):
        for axis, metric in zip(axes, ("cosine", "retention"), strict=True):
            for index, name in enumerate(MERGERS):
                place = np.arange(len(article.MERGE_LEVELS)) + (index - 2.5) * 0.14
                values = [getattr(study.score(name, level), metric) for level in article.MERGE_LEVELS]
                axis.bar(place, values, 0.13, color=theme.colour(METHOD_COLOURS[name]), label=name)
                if metric == "cosine" and name in article.TABLE_2:
                    printed = [cosine for cosine, _ in article.TABLE_2[name]]
                    mark = {"ls": "", "marker": "_", "ms": 9, "mew": 2, "color": theme.ink}
                    axis.plot(place, printed, label="printed in the paper" if index == 0 else None, **mark)
            axis.set_xticks(range(3), [f"{100 * level:.0f} %" for level in article.MERGE_LEVELS])
            axis.set_xlabel("sparsity")
            axis.grid(visible=False, axis="x")
        axes[0].set(title="a  cosine to the oracle cannot see dilution", ylabel="cosine")
        axes[1].set(title="b  retention on own support can", ylabel="retention (1 is ideal)")
        axes[1].axhline(1, color=theme.ink, lw=0.8, ls=":")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2 if theme.narrow else 4)
    return figure


def _lines(study: MergeStudy, theme: Theme) -> Any:
    x = [100 * level for level in study.levels]
    with canvas(theme, panels=2, height=3.4) as (figure, (left, right)):
        for name in ("Simple Avg", "TIES", "RAM", "RAM, strict mask"):
            values = [study.score(name, level).cosine for level in study.levels]
            left.plot(x, values, "o-", color=theme.colour(METHOD_COLOURS[name]), label=name)
        left.set(title="a  cosine to the oracle", ylabel="cosine", xlabel="sparsity, %", ylim=(0.84, 1.01))
        left.legend(loc="lower left", ncols=2)
        for name in ("Simple Avg", "TIES"):
            lead = [study.score("RAM", s).cosine - study.score(name, s).cosine for s in study.levels]
            right.plot(x, lead, "o-", color=theme.colour(METHOD_COLOURS[name]), label=f"over {name}")
        right.axhline(0, color=theme.ink, lw=0.8)
        right.axvspan(90, 97, color=theme.grid, alpha=0.6, lw=0)
        right.text(93.5, 0.45, "mask\nall true", fontsize=8, ha="center", transform=right.get_xaxis_transform())
        right.set(title="b  RAM's lead is a deficit, then a tie", ylabel="difference of cosines", xlabel="sparsity, %")
        right.legend(loc="upper left")
    return figure
