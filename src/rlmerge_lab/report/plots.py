"""The pictures of a study's report: each an SVG with the sheet that holds its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlmerge.report.curves import Curve, Point, curve_plot
from rlmerge.report.heat import heat_map
from rlmerge.report.rows import Dot, Dots, dot_plot

from . import sheets
from .parts import Picture, Sheet
from .words import RULES

Result = Mapping[str, Any]

COLORS = 12
NEUTRAL = 10
"""A grey for pictures whose rows are the arms."""
MAIN = ("rl", "sft")


def colors(study: Result) -> dict[str, int]:
    """A colour number for each arm, the same in every picture."""
    return {arm: number % COLORS for number, arm in enumerate(study.get("arms") or ())}


def gains(study: Result, judged: Result, rule: str) -> Picture:
    """Gain kept by method, a dot for each arm."""
    methods, hue = judged["summary"]["methods"], colors(study)
    series = [
        Dots(arm, hue.get(arm, 0), [_dot(row, methods[row]["arms"][arm][rule]) for row in range(len(methods))])
        for arm in MAIN
        if any(arm in row["arms"] for row in methods)
    ]
    title = f"Gain kept, methods {RULES[rule]}"
    note = "Share of the experts' gain over the base that the merge of all experts keeps; 1 is all of it. Bars: 95 %."
    svg = dot_plot(
        title,
        note,
        [row["method"] for row in methods],
        series,
        x_label="gain kept",
        percent=True,
        references=(0.0, 1.0),
    )
    return Picture(f"gains-{rule}", title, note, svg, sheets.gains(judged, rule), _names(series))


def differences(study: Result, judged: Result) -> Picture:
    """RL minus SFT by method under every rule; the colours are those of no arm."""
    methods = judged["summary"]["methods"]
    first = len(colors(study))
    series = [
        Dots(RULES[rule], (first + k) % COLORS, [_dot(n, row["rl_minus_sft"][rule]) for n, row in enumerate(methods)])
        for k, rule in enumerate(RULES)
    ]
    title = "RL − SFT by method"
    note = "Paired difference of the gain kept: right of 0 RL merges better, left of it worse. Bars: 95 %, unadjusted."
    svg = dot_plot(
        title, note, [row["method"] for row in methods], series, x_label="gain kept, RL − SFT", percent=True,
        references=(0.0,),
    )  # fmt: skip
    return Picture("differences", title, note, svg, sheets.differences(judged), _names(series))


def scales(study: Result, judged: Result) -> list[Picture]:
    """Gain kept against the norm of the merged update: RL and SFT with every method's mark, then every arm."""
    marks: list[Curve] = []
    hue = colors(study)
    for row in judged["summary"]["methods"]:
        for arm in MAIN:
            found = row["arms"].get(arm)
            if found and found["norm"] and found["default"]:
                point = Point(found["norm"]["value"], found["default"]["value"])
                marks.append(Curve(f"{row['method']}, {arm}", hue.get(arm, 0), [point]))
    sheet = sheets.scale(judged)
    pictures: list[Picture] = []
    for key, title, note, curves, arms in (
        (
            "scale",
            "Gain kept against the scale of the merged update",
            "Curves: task arithmetic over its coefficient. Single marks: each method as it comes. A mark on its arm's "
            "curve does what a coefficient alone would do.",
            [*_sweeps(study, judged, MAIN), *marks],
            [arm for arm in hue if arm in MAIN],
        ),
        (
            "scale-arms",
            "The same for every arm",
            "Task arithmetic over its coefficient.",
            _sweeps(study, judged, tuple(hue)),
            list(hue),
        ),
    ):
        svg = curve_plot(
            title, note, curves, x_label="‖δ*‖ / ‖θ₀‖", y_label="gain kept", percent=True, references=(0.0, 1.0),
            height=320,
        )  # fmt: skip
        names = tuple((arm, hue[arm]) for arm in arms)
        pictures.append(Picture(key, title, f"{note} Bands: 95 % over seeds.", svg, sheet, names))
    return pictures


def _sweeps(study: Result, judged: Result, arms: Sequence[str]) -> list[Curve]:
    hue = colors(study)
    curves: list[Curve] = []
    for row in judged["summary"]["scale"]:
        points = [
            Point(point["norm"]["value"], gain["value"], gain["low"], gain["high"])
            for point in row["points"]
            if point["norm"] is not None and (gain := point["gain_kept"]) is not None
        ]
        if points and row["arm"] in arms:
            curves.append(Curve(f"task arithmetic, {row['arm']}", hue.get(row["arm"], 0), points))
    return curves


def conflicts(judged: Result) -> list[Picture]:
    """Conflict norm and the share of the overlap in conflict, by arm."""
    rows = judged["summary"]["geometry"]
    return [
        _by_arm(rows, key, title, note, sheets.geometry(judged), percent, references)
        for key, title, note, percent, references in (
            ("conflict_norm", "Conflict norm ‖C⁻‖", "C = τ_a ⊙ τ_b; grows with the updates squared.", False, (0.0,)),
            ("conflict_share", "Conflict share Σ|C⁻|/Σ|C|", "Free of size; random signs give 50 %.", True, (0.5,)),
            ("cosine", "Cosine of two task vectors", "0 is orthogonal.", False, (0.0,)),
        )
    ]  # fmt: skip


def updates(judged: Result) -> list[Picture]:
    """Size and sparsity of the experts, by arm."""
    rows = judged["summary"]["experts"]
    return [
        _by_arm(rows, key, title, note, sheets.experts(judged), percent, references)
        for key, title, note, percent, references in (
            ("unchanged", "Unchanged weights", "Bit-identical to the base in the stored type.", True, (0.0,)),
            ("norm", "Size of the updates ‖τ‖/‖θ₀‖", "Relative to the base; every weight counts.", False, (0.0,)),
        )
    ]


def _by_arm(
    rows: Sequence[Result], key: str, title: str, note: str, sheet: Sheet, percent: bool, references: Sequence[float]
) -> Picture:
    """A row for each arm."""
    series = [Dots("mean", NEUTRAL, [_dot(n, row[key]) for n, row in enumerate(rows)])]
    svg = dot_plot(
        title, note, [row["arm"] for row in rows], series, x_label=title, percent=percent, references=references
    )
    return Picture(key.replace("_", "-"), title, f"{note} Bars: 95 % over seeds.", svg, sheet)


def landscapes(study: Result) -> list[Picture]:
    """Every picture of the score around an expert, along another task's update and a random direction."""
    found: list[Picture] = []
    pictures: Sequence[Result] = study.get("landscape") or ()
    for number, row in enumerate(pictures):
        title = f"{row['arm']}, seed {row['seed']}: {row['task']} around {row['center']}"
        note = (
            f"Score of {row['task']} at center + α · update of {row['direction']} + β · random direction of its norms."
        )
        alphas, betas, score = row["alphas"], row["betas"], row["score"]
        svg = heat_map(
            title, note, alphas, betas, score, x_label="α", y_label="β", unit="score", percent=True,
            marks=[(at, 0.0, name) for at, name in ((0.0, "center"), (1.0, f"+ {row['direction']}"))
                   if alphas[0] <= at <= alphas[-1] and betas[0] <= 0.0 <= betas[-1]],
        )  # fmt: skip
        cells = [
            [f"{alpha:g}", *(sheets.percent(value) for value in line)]
            for alpha, line in zip(alphas, score, strict=True)
        ]
        sheet = Sheet("Score by α (rows) and β", ["α", *(f"β = {beta:g}" for beta in betas)], cells)
        found.append(Picture(f"landscape-{number}", title, note, svg, sheet))
    return found


def _names(series: Sequence[Dots]) -> tuple[tuple[str, int], ...]:
    return tuple((one.name, one.color) for one in series)


def _dot(row: int, found: Result | None) -> Dot:
    return Dot(row, None) if found is None else Dot(row, found["value"], found["low"], found["high"])
