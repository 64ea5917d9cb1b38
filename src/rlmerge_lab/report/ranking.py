"""Methods on RL experts, as tables and pictures: ranked, against drift, by layer, and beside distillation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlmerge.report.curves import Curve, Point

from .charts import lines
from .parts import NONE, Picture, Sheet
from .sheets import cell
from .words import RULES, difference, points, probability

Result = Mapping[str, Any]

COLORS = 12
REFERENCE, OWN = "task_arithmetic", "covariance"
BANDS = 4
"""Curves of one picture that are drawn with their intervals."""
PLAIN = 10
"""A grey for task arithmetic."""
KINDS = ("coordinates", "signs", "sensitivities", "angles", "inputs", "subspaces")
"""What methods look at, in the order of their colours."""
STARTS = {
    "distil": "from the base",
    "distil-ta": "from tuned task arithmetic",
    "distil-own": f"from the merge by {OWN}",
}


def ranked(judged: Result) -> Sheet:
    """Every method as tuned, best first."""
    rows: list[list[str]] = []
    for row in judged["summary"]["ranking"]:
        gap: Result = row["against"] or {"value": None}
        known = gap["value"] is not None
        rows.append(
            [
                row["method"],
                row["looks_at"] or NONE,
                cell(row["gain"], True),
                change(row["off_task"]),
                difference(gap) if known else NONE,
                NONE if gap.get("p") is None else probability(gap["p"]),
                cell(row["off_retention"], True),
                cell(row["score"], True),
                cell(row["pairs"], True),
                change(row["pairs_off_task"]),
                cell(row["layer_0"], True),
                cell(row["rest"], True),
            ]
        )
    head = [
        "method", "looks at", "gain kept", "off task, points", "minus task arithmetic", "p", "off task, merged / base",
        "pass@1", "gain kept, pairs", "off task, pairs, points", "in layer 0 alone", "in all but layer 0",
    ]  # fmt: skip
    caption = (
        "Methods on RL experts, tuned on dev; p unadjusted. Off task are tasks that no merged expert was trained on. "
        "In layer 0 alone, or in all but layer 0: the gain kept where tuned task arithmetic has the rest of the weights"
    )
    return Sheet(caption, head, rows).filled()


def off_task(judged: Result, rule: str) -> Sheet:
    """Change on held tasks by method and arm under one rule."""
    methods = judged["summary"]["methods"]
    names = [row["arm"] for row in judged["summary"]["experts"]]
    rows = [[row["method"], *(change(row["arms"][arm]["off"][rule]) for arm in names)] for row in methods]
    caption = f"Change of pass@1 on held tasks, points, methods {RULES[rule]}, 95 % intervals over seeds"
    return Sheet(caption, ["method", *names], rows).filled()


def by_layer(judged: Result) -> Sheet:
    """Gain kept by tuned task arithmetic with one part of its weights from each method's tuned merge."""
    found = judged["summary"]["layers"]
    numbers = sorted({one["layer"] for row in found for one in row["layers"]})
    rows: list[list[str]] = []
    for row in found:
        at = {one["layer"]: one["gain_kept"] for one in row["layers"]}
        parts = [at.get(number) for number in numbers]
        rows.append(
            [
                row["method"],
                *(cell(one, True) for one in (row["reference"], *parts, row["outside"], row["rest"], row["whole"])),
            ]
        )
    head = ["method", "nothing", *(f"layer {n}" for n in numbers), "outside layers", "all but layer 0", "everything"]
    return Sheet(
        "Gain kept with a part of tuned task arithmetic replaced by the method's, RL experts", head, rows
    ).filled()


def students(judged: Result) -> Sheet:
    """Students by where they started."""
    rows = [
        [
            f"{row['arm']}, {STARTS.get(row['arm'], NONE)}",
            f"{row['points'][-1]['tokens']:,.0f}" if row["points"] else NONE,
            cell(row["points"][0]["score"], True) if row["points"] else NONE,
            cell(row["points"][-1]["score"], True) if row["points"] else NONE,
            cell(row["score"], True),
            change(row["off_task"]),
        ]
        for row in judged["summary"]["students"]
    ]
    head = ["student", "generated tokens", "pass@1 on dev at the start", "at the end", "on test", "off task, points"]
    return Sheet(
        "One model distilled on-policy from the experts of all tasks, means over tasks and seeds", head, rows
    ).filled()


def pictures_of_methods(judged: Result) -> list[Picture]:
    """Gain against drift, and gain by layer; those without values are left out."""
    return [picture for picture in (_drift(judged), _layers(judged)) if picture.sheet.rows]


def pictures_of_students(judged: Result) -> list[Picture]:
    """Score against generated tokens."""
    rows = judged["summary"]["students"]
    curves = [
        Curve(STARTS[row["arm"]], number, [_point(one["tokens"], one["score"]) for one in row["points"]], toggled=False)
        for number, row in enumerate(rows)
    ]
    title = "Merge or distil?"
    note = "Mean pass@1 on dev by tokens that the student generated; at 0 stands what it starts from. Bands: 95 %."
    picture = lines("students", title, note, curves, x_label="generated tokens", y_label="pass@1", percent=True)
    return [picture] if picture.sheet.rows else []


def _drift(judged: Result) -> Picture:
    """Each method's mark, and the curve of task arithmetic over its coefficient."""
    swept = next((row["points"] for row in judged["summary"]["scale"] if row["arm"] == "rl"), ())
    curve = [
        Point(100 * one["off_task"]["value"], one["gain_kept"]["value"])
        for one in swept
        if one.get("off_task") and one["gain_kept"]
    ]
    curves = [Curve("task arithmetic over its coefficient", PLAIN, curve, dashed=True, toggled=False)] if curve else []
    for row in judged["summary"]["ranking"]:
        if row["off_task"] and row["gain"]:
            color = KINDS.index(row["looks_at"]) if row["looks_at"] in KINDS else PLAIN
            curves.append(Curve(row["method"], color, [_mark(row)], toggled=False))
    title = "Gain kept against drift"
    note = (
        "RL experts, methods tuned on dev; right is less lost, or more gained, on tasks that no expert was trained on."
    )
    picture = lines("drift", title, note, curves, x_label="change off task, points", y_label="gain kept", percent=True)
    named = {row["looks_at"] for row in judged["summary"]["ranking"]}
    legend = [(f"looks at {kind}", number) for number, kind in enumerate(KINDS) if kind in named]
    sheet = _drift_sheet(judged) if len(curves) > bool(curve) else Sheet(title, ["method"], [])
    return Picture(picture.key, title, note, picture.svg, sheet, (*legend, ("task arithmetic by coefficient", PLAIN)))


def _mark(row: Result) -> Point:
    return Point(100 * row["off_task"]["value"], row["gain"]["value"])


def _drift_sheet(judged: Result) -> Sheet:
    rows = [[row["method"], change(row["off_task"]), cell(row["gain"], True)] for row in judged["summary"]["ranking"]]
    return Sheet("Change off task, points, and gain kept", ["method", "off task", "gain kept"], rows).filled()


def _layers(judged: Result) -> Picture:
    """A curve for each method over the layers, beside task arithmetic's level."""
    found = judged["summary"]["layers"]
    # Bands of many methods hide each other; their intervals are in the table.
    point = _point if len(found) <= BANDS else _bare
    curves = [
        Curve(
            row["method"],
            number % COLORS,
            [point(one["layer"], one["gain_kept"]) for one in row["layers"]],
            toggled=False,
        )
        for number, row in enumerate(found)
    ]
    level = found[0]["reference"]["value"] if found and found[0]["reference"] else None
    title = "Gain kept with one layer by the method"
    note = (
        "Tuned task arithmetic with a single layer's weights taken from the method's tuned merge; dashed: task "
        "arithmetic alone."
    )
    return lines(
        "layers", title, note, curves, x_label="layer", y_label="gain kept", percent=True,
        references=() if level is None else (level,), whole_x=True,
    )  # fmt: skip


def _point(x: float, found: Result | None) -> Point:
    return Point(x, None) if found is None else Point(x, found["value"], found["low"], found["high"])


def _bare(x: float, found: Result | None) -> Point:
    return Point(x, None if found is None else found["value"])


def change(found: Result | None) -> str:
    """A mean change of a share in points, with its interval, or a dash."""
    if found is None:
        return NONE
    shown = points(found["value"])
    return shown if found["low"] is None else f"{shown} [{points(found['low'])}, {points(found['high'])}]"
