"""The charts of an evaluation report: scores, what merges kept, and how models compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .dots import Dot, Dots, dot_plot
from .eval_words import by_task, figure, fixed, kinds, pairs, places, span, task_title
from .tables import amount, matrix, plot, share, table

Result = Mapping[str, Any]
Colors = Mapping[str, int]

BASE_COLOR, COLORS = 10, 12
"""The base is drawn in grey; of the other colours every model gets one, in turn."""


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
    single = [[task] for task in result["tasks"] if task not in shared]
    charts = [_scores(tasks, found, color) for tasks in [*([shared] if shared else []), *single]]
    return "".join(charts)


def _within_one(task: Result, found: Mapping[tuple[str, str], Result]) -> bool:
    values = [score["value"] for (_, name), score in found.items() if name == task["task"]]
    return all(value is None or 0 <= value <= 1 for value in values)


def _scores(tasks: Sequence[Result], found: Mapping[tuple[str, str], Result], color: Colors) -> str:
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
    title = f"Scores: {', '.join(labels)}" if len(labels) <= 2 else "Scores on all tasks"
    chart = dot_plot(title, "A dot and its interval per task and model.", labels, series, x_label=label)
    return plot(title, "95 % intervals of each score; whether two models differ is under ‘Compared’.", chart, data)


def score_table(result: Result) -> str:
    """Models × tasks with intervals in small print."""
    found = by_task(result)
    digits = {
        task["task"]: places([score for (_, name), score in found.items() if name == task["task"]])
        for task in result["tasks"]
    }
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


def kept(result: Result, color: Colors) -> str:
    """Retention, gain kept and the differences behind the verdicts, per task and expert."""
    merges = result["merges"]
    rows = list(dict.fromkeys((row["task"], row["expert"]) for merge in merges for row in merge["per_task"]))
    experts = {expert for _, expert in rows}
    labels = [task if len(experts) == 1 else f"{task} · {expert}" for task, expert in rows]
    data = _kept_table(merges)

    def chart(key: str, title: str, note: str, label: str, references: Sequence[float], percent: bool) -> str:
        series = [
            Dots(
                merge["model"],
                color.get(merge["model"], 0),
                [_dot(rows.index((row["task"], row["expert"])), row[key]) for row in merge["per_task"]],
            )
            for merge in merges
        ]
        drawn = dot_plot(title, note, labels, series, x_label=label, references=references, percent=percent)
        return plot(title, note, drawn, data)

    return "".join(
        (
            chart(
                "retention",
                "Retention",
                "Merged / expert on the expert’s own task; dashed: the expert’s score. Degradation is retention − 1.",
                "share of the expert’s score",
                [1.0],
                True,
            ),
            chart(
                "gain_kept",
                "Gain over the base that is kept",
                "(merged − base) / (expert − base); dashed: nothing, and all. Drawn where the expert beats the base.",
                "share of the expert’s gain",
                [0.0, 1.0],
                True,
            ),
            chart(
                "difference_to_expert",
                "Difference to the expert",
                "Paired, with its 95 % interval: where that holds 0 (dashed), better or worse is undecided.",
                "merged − expert",
                [0.0],
                False,
            ),
            chart(
                "difference_to_base",
                "Difference to the base",
                "Paired, with its 95 % interval: where that holds 0 (dashed), better or worse is undecided.",
                "merged − base",
                [0.0],
                False,
            ),
        )
    )


def _kept_table(merges: Sequence[Result]) -> str:
    head = ["merge", "task", "expert", "base", "expert’s", "merged", "retention", "degradation", "gain kept"]
    rows = [
        [
            merge["model"], row["task"], row["expert"],
            *(amount(row[key]) for key in ("base_value", "expert_value", "merged_value")),
            *(span(row[key], percent=True) for key in ("retention", "degradation", "gain_kept")),
            span(row["difference_to_base"]), row["verdict_to_base"],
            span(row["difference_to_expert"]), row["verdict_to_expert"],
        ]
        for merge in merges
        for row in merge["per_task"]
    ]  # fmt: skip
    head += ["− base", "to base", "− expert", "to expert"]
    return table("Every merge on the experts’ own tasks, with 95 % intervals", head, rows, "names")


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
    """Differences of merges to one another and to the base."""
    found = pairs(result)
    mean = all(pair["task"] == "mean" for pair in found)
    labels = [f"{pair['a']} − {pair['b']}" if mean else f"{pair['a']} − {pair['b']}, {pair['task']}" for pair in found]
    dots = [_dot(row, pair["difference"], f"; {pair['verdict']}") for row, pair in enumerate(found)]
    data = table(
        "Differences with 95 % intervals; the verdict is about the first of the two",
        ["first", "second", "task", "difference", "first is"],
        [[p["a"], p["b"], p["task"], span(p["difference"]), p["verdict"]] for p in result["comparisons"]],
        "names",
    )
    what = "mean score over tasks" if mean else "score"
    title = f"Differences in {what}"
    note = "Paired over items; an interval that holds 0 (dashed) decides nothing. Decided pairs come first."
    series = [Dots("difference", 0, dots, toggled=False)]
    drawn = dot_plot(title, note, labels, series, x_label=what, references=[0.0], label_width=180)
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


def _dot(row: int, interval: Result | None, note: str = "") -> Dot:
    if interval is None:
        return Dot(row, None)
    return Dot(row, interval["value"], interval["low"], interval["high"], note)
