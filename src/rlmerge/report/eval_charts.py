"""The charts of an evaluation report: scores, what merges kept, and how models compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .axes import columns, fit
from .dots import Dot, Dots, dot_plot
from .eval_words import by_task, figure, fixed, kinds, listed, pairs, places, span, task_places, task_title
from .tables import amount, matrix, plot, share, table

Result = Mapping[str, Any]
Colors = Mapping[str, int]

BASE_COLOR, COLORS = 10, 12
"""The base is drawn in grey; of the other colours every model gets one, in turn."""
MOST_ROWS = 6
"""Tasks of a chart of scores; more are spread over several with the same axis."""


def colors(result: Result) -> dict[str, int]:
    """A colour for every model: merges first, for they are looked at most, then experts, and grey for the base."""
    others = [color for color in range(COLORS) if color != BASE_COLOR]
    order = [m["name"] for role in ("merge", "expert") for m in result["models"] if m["role"] == role]
    found = {name: others[k % len(others)] for k, name in enumerate(order)}
    return {m["name"]: found.get(m["name"], BASE_COLOR) for m in result["models"]}


def scores(result: Result, color: Colors) -> str:
    """Every model's scores as dots; tasks whose scores all lie in [0, 1] share a chart, the others have one each."""
    found = by_task(result)
    shared = [task for task in result["tasks"] if _within_one(task, found)]
    count = -(-len(shared) // MOST_ROWS)
    size = -(-len(shared) // max(1, count))
    groups = [shared[first : first + size] for first in range(0, len(shared), size or 1)]
    groups += [[task] for task in result["tasks"] if task not in shared]
    ends = [value for task in shared for value in _known(task, found)]
    return "".join(_scores(tasks, found, color, ends if tasks[0] in shared else []) for tasks in groups)


def _within_one(task: Result, found: Mapping[tuple[str, str], Result]) -> bool:
    return all(0 <= value <= 1 for value in _known(task, found))


def _known(task: Result, found: Mapping[tuple[str, str], Result]) -> list[float]:
    values = (score["value"] for (_, name), score in found.items() if name == task["task"])
    return [value for value in values if value is not None]


def _scores(
    tasks: Sequence[Result], found: Mapping[tuple[str, str], Result], color: Colors, within: Sequence[float]
) -> str:
    labels = [task_title(task) for task in tasks]
    series = [
        Dots(name, color[name], [_dot(row, found.get((name, task["task"]))) for row, task in enumerate(tasks)])
        for name in color
    ]
    metrics = list(dict.fromkeys(task["metric"] for task in tasks))
    label = metrics[0] if len(metrics) == 1 else "score"
    data = table(
        f"Scores with 95 % intervals: {label}",
        ["model", *labels],
        [[name, *(span(found.get((name, task["task"]))) for task in tasks)] for name in color],
        "names",
    )
    title = f"Scores on {listed(labels)}" if len(labels) <= 3 else f"Scores on {labels[0]} to {labels[-1]}"
    chart = dot_plot(title, "A dot and its interval per task and model.", labels, series, x_label=label, within=within)
    return plot(title, "95 % intervals of each score; whether two models differ is under ‘Compared’.", chart, data)


def score_table(result: Result) -> str:
    """Models × tasks with intervals in small print."""
    found = by_task(result)
    digits = task_places(result)
    titles = {task_title(task): task["task"] for task in result["tasks"]}

    def cell(model: str, title: str) -> tuple[str, str, float] | None:
        score = found.get((model, titles[title]))
        if score is None or score["value"] is None:
            return None
        decimals = digits[titles[title]]
        ends = ["–" if score[end] is None else f"{score[end]:.{decimals}f}" for end in ("low", "high")]
        return f"{score['value']:.{decimals}f}", f"[{', '.join(ends)}]", 0.0

    note = f"{'; '.join(kinds(result))}. In brackets the 95 % interval."
    return matrix("Models and tasks", note, [m["name"] for m in result["models"]], cell, list(titles))


VIEWS = (
    (
        "retention",
        "Retention",
        "Merged / expert on the expert’s own task; dashed: the expert’s score. Degradation is retention − 1.",
        "share of the expert’s score",
        (1.0,),
    ),
    (
        "gain_kept",
        "Gain over the base that is kept",
        "(merged − base) / (expert − base); dashed: nothing, and all. Drawn where the expert beats the base.",
        "share of the expert’s gain",
        (0.0, 1.0),
    ),
    (
        "difference_to_expert",
        "Difference to the expert",
        "Paired, with its 95 % interval: where that holds 0 (dashed), better or worse is undecided.",
        "merged − expert",
        (0.0,),
    ),
    (
        "difference_to_base",
        "Difference to the base",
        "Paired, with its 95 % interval: where that holds 0 (dashed), better or worse is undecided.",
        "merged − base",
        (0.0,),
    ),
)
"""Key of the result, title, how to read it, label of the axis, and what is marked on it."""


def kept(result: Result, color: Colors) -> str:
    """Retention, gain kept and the differences behind the verdicts, per task and expert."""
    merges = result["merges"]
    rows = list(dict.fromkeys((row["task"], row["expert"]) for merge in merges for row in merge["per_task"]))
    experts = {expert for _, expert in rows}
    labels = [task if len(experts) == 1 else joined(task, expert, " · ", 16) for task, expert in rows]
    charts: list[str] = []
    for key, title, note, label, marked in VIEWS:
        series = [
            Dots(
                merge["model"],
                color.get(merge["model"], 0),
                [_dot(rows.index((row["task"], row["expert"])), row[key]) for row in merge["per_task"]],
            )
            for merge in merges
        ]
        percent = not key.startswith("difference")
        drawn = dot_plot(title, note, labels, series, x_label=label, references=marked, percent=percent)
        charts.append(plot(title, note, drawn, _kept_table(merges, key, label, percent)))
    return "".join(charts)


def _kept_table(merges: Sequence[Result], key: str, label: str, percent: bool) -> str:
    """What one view draws, beside the scores it is computed from."""
    extra = "degradation" if key == "retention" else key.replace("difference", "verdict")
    head = ["merge", "task", "expert", "base", "expert’s", "merged", label]
    head += [] if key == "gain_kept" else ["degradation" if percent else "merge is"]
    rows: list[list[str]] = []
    for merge in merges:
        for row in merge["per_task"]:
            scores = (amount(row[name]) for name in ("base_value", "expert_value", "merged_value"))
            more = [] if key == "gain_kept" else [span(row[extra], percent=True) if percent else row[extra]]
            rows.append([merge["model"], row["task"], row["expert"], *scores, span(row[key], percent), *more])
    return table("With 95 % intervals", head, rows, "names")


def summary_table(result: Result) -> str:
    """A row per merge: what it keeps over all own tasks, its mean, and where it keeps least."""
    rows = [
        [
            merge["model"],
            span(merge["gain_kept"], percent=True),
            span(merge.get("retention"), percent=True),
            span(merge["mean"]),
            "–"
            if not merge["worst"]
            else f"{merge['worst']['task']}: {share(merge['worst']['retention'])} of {merge['worst']['expert']}",
        ]
        for merge in result["merges"]
    ]
    head = ["merge", "gain kept", "retention", "mean score", "worst task"]
    return table("Means over own tasks, and the plain mean of the scores, with 95 % intervals", head, rows, "names")


def compared(result: Result) -> str:
    """Differences of merges to the base and to one another."""
    bases = {model["name"] for model in result["models"] if model["role"] == "base"}
    found = pairs(result)
    to_base = [pair for pair in found if pair["b"] in bases]
    among = [pair for pair in found if pair["b"] not in bases]
    return _differences("Merges against the base", to_base) + _differences("Merges against one another", among)


def _differences(title: str, found: Sequence[Result]) -> str:
    if not found:
        return ""
    mean = all(pair["task"] == "mean" for pair in found)
    labels = [joined(pair["a"], pair["b"], " − ", 22) for pair in found]
    if not mean:
        labels = [joined(label, pair["task"], ": ", 22) for label, pair in zip(labels, found, strict=True)]
    dots = [_dot(row, pair["difference"], f"; {pair['verdict']}") for row, pair in enumerate(found)]
    what = "mean score over tasks" if mean else "score"
    rows = [[pair["a"], pair["b"], pair["task"], span(pair["difference"]), pair["verdict"]] for pair in found]
    data = table(
        f"{title}: differences in {what}", ["first", "second", "on", "first − second", "first is"], rows, "names"
    )
    note = f"Differences in {what}, paired over items; an interval that holds 0 (dashed) decides nothing."
    series = [Dots("", 0, dots, toggled=False)]
    drawn = dot_plot(title, note, labels, series, x_label="first − second", references=[0.0], label_width=180)
    return plot(title, note, drawn, data)


def verdict_matrix(result: Result) -> str:
    """First − second per pair and task: coloured where decided."""
    cells = {(f"{p['a']} − {p['b']}", p["task"]): p for p in result["comparisons"]}
    rows, tasks = (list(dict.fromkeys(key[side] for key in cells)) for side in (0, 1))
    digits = {task: places([p["difference"] for p in result["comparisons"] if p["task"] == task]) for task in tasks}
    strength = {"better": 0.5, "worse": -0.5, "undecided": 0.0}

    def cell(row: str, task: str) -> tuple[str, str, float] | None:
        pair = cells.get((row, task))
        if pair is None:
            return None
        return fixed(figure(pair["difference"]), digits[task]), pair["verdict"], strength[pair["verdict"]]

    counts = ", ".join(f"{sum(p['verdict'] == verdict for p in cells.values())} {verdict}" for verdict in strength)
    note = f"First minus second. Coloured where the 95 % interval excludes 0: {counts}."
    return matrix("Differences by task", note, rows, cell, tasks)


def joined(first: str, second: str, between: str, room: int) -> str:
    """Two names on a label of ``room`` letters; each is cut in its own middle, and the shorter as little as may be."""
    room -= len(between)
    most = max(room - columns(second), room // 2)
    first = fit(first, most, size=1)
    return f"{first}{between}{fit(second, room - columns(first), size=1)}"


def _dot(row: int, interval: Result | None, note: str = "") -> Dot:
    if interval is None:
        return Dot(row, None)
    return Dot(row, interval["value"], interval["low"], interval["high"], note)
