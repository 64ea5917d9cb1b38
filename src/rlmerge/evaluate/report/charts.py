"""The charts of an evaluation report: scores, what merges kept, and how models compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rlmerge.evaluate.compare import MEAN
from rlmerge.evaluate.report.summary import (
    by_task,
    figure,
    fixed,
    listed,
    pairs,
    places,
    scoring_notes,
    shown,
    task_places,
    task_title,
)
from rlmerge.evaluate.results import Cell, Comparison, Evaluation, Merge, Survival, Task
from rlmerge.evaluate.statistics import Interval
from rlmerge.frozen import frozen
from rlmerge.report.axes import finite
from rlmerge.report.rows import Dot, Dots, dot_plot
from rlmerge.report.svg import COLORS
from rlmerge.report.tables import amount, matrix, plot, share, table
from rlmerge.text import columns, fit

Colors = Mapping[str, int]

BASE_COLOR = 10
"""The base is drawn in grey; of the other colours every model gets one, in turn."""
MOST_ROWS = 6
"""Tasks of a chart of scores; more are spread over several with the same axis."""


def colors(found: Evaluation) -> dict[str, int]:
    """A colour for every model: merges first, for they are looked at most, then experts, and grey for the base."""
    others = [color for color in range(COLORS) if color != BASE_COLOR]
    order = [model.name for role in ("merge", "expert") for model in found.models if model.role == role]
    given = {name: others[k % len(others)] for k, name in enumerate(order)}
    return {model.name: given.get(model.name, BASE_COLOR) for model in found.models}


def scores(found: Evaluation, color: Colors) -> str:
    """Every model's scores as dots; tasks whose scores all lie in [0, 1] share a chart, the others have one each."""
    cells = by_task(found)
    values = {
        task.task: [cell.score.value for cell in found.scores if cell.score.task == task.task] for task in found.tasks
    }
    shared = [task for task in found.tasks if all(0 <= value <= 1 for value in values[task.task])]
    count = -(-len(shared) // MOST_ROWS)
    size = -(-len(shared) // max(1, count))
    groups = [shared[first : first + size] for first in range(0, len(shared), size or 1)]
    groups += [[task] for task in found.tasks if task not in shared]
    ends = [value for task in shared for value in values[task.task]]
    return "".join(_scores(tasks, cells, color, ends if tasks[0] in shared else []) for tasks in groups)


def _scores(
    tasks: Sequence[Task], cells: Mapping[tuple[str, str], Cell], color: Colors, within: Sequence[float]
) -> str:
    labels = [task_title(task) for task in tasks]
    intervals = {name: [_interval(cells.get((name, task.task))) for task in tasks] for name in color}
    series = [
        Dots(name, color[name], [_dot(row, interval) for row, interval in enumerate(own)])
        for name, own in intervals.items()
    ]
    metrics = list(dict.fromkeys(task.metric for task in tasks))
    label = metrics[0] if len(metrics) == 1 else "score"
    data = table(
        f"Scores with 95 % intervals: {label}",
        ["model", *labels],
        [[name, *map(shown, own)] for name, own in intervals.items()],
        "names",
    )
    title = f"Scores on {listed(labels)}" if len(labels) <= 3 else f"Scores on {labels[0]} to {labels[-1]}"
    chart = dot_plot(title, "A dot and its interval per task and model.", labels, series, x_label=label, within=within)
    return plot(title, "95 % intervals of each score; whether two models differ is under ‘Compared’.", chart, data)


def score_table(found: Evaluation) -> str:
    """Models × tasks with intervals in small print."""
    cells = by_task(found)
    digits = task_places(found)
    titles = {task_title(task): task.task for task in found.tasks}

    def cell(model: str, title: str) -> tuple[str, str, float] | None:
        interval = _interval(cells.get((model, titles[title])))
        if interval is None:
            return None
        decimals = digits[titles[title]]
        ends = [f"{end:.{decimals}f}" if finite(end) else "–" for end in (interval.low, interval.high)]
        return f"{interval.value:.{decimals}f}", f"[{', '.join(ends)}]", 0.0

    note = f"{'; '.join(scoring_notes(found))}. In brackets the 95 % interval."
    return matrix("Models and tasks", note, [model.name for model in found.models], cell, list(titles))


@frozen(slots=True)
class View:
    """One chart of what merges kept: how its figure is read off and said, what is marked, what its table adds."""

    title: str
    note: str
    label: str
    marked: tuple[float, ...]
    read: Callable[[Survival], Interval | None]
    percent: bool
    beside: tuple[str, Callable[[Survival], str]] | None = None


_PAIRED = "Paired, with its 95 % interval: where that holds 0 (dashed), better or worse is undecided."
VIEWS = (
    View(
        "Retention",
        "Merged / expert on the expert’s own task; dashed: the expert’s score. Degradation is retention − 1.",
        "share of the expert’s score",
        (1.0,),
        lambda row: row.retention,
        True,
        ("degradation", lambda row: shown(row.degradation, percent=True)),
    ),
    View(
        "Gain over the base that is kept",
        "(merged − base) / (expert − base); dashed: nothing, and all. Drawn where the expert beats the base.",
        "share of the expert’s gain",
        (0.0, 1.0),
        lambda row: row.gain_kept,
        True,
    ),
    View(
        "Difference to the expert",
        _PAIRED,
        "merged − expert",
        (0.0,),
        lambda row: row.difference_to_expert,
        False,
        ("merge is", lambda row: row.verdict_to_expert),
    ),
    View(
        "Difference to the base",
        _PAIRED,
        "merged − base",
        (0.0,),
        lambda row: row.difference_to_base,
        False,
        ("merge is", lambda row: row.verdict_to_base),
    ),
)


def kept(found: Evaluation, color: Colors) -> str:
    """Retention, gain kept and the differences behind the verdicts, per task and expert."""
    rows = list(dict.fromkeys((row.task, row.expert) for merge in found.merges for row in merge.per_task))
    experts = {expert for _, expert in rows}
    labels = [task if len(experts) == 1 else joined(task, expert, " · ", 16) for task, expert in rows]
    charts: list[str] = []
    for view in VIEWS:
        series = [
            Dots(
                merge.model,
                color.get(merge.model, 0),
                [_dot(rows.index((row.task, row.expert)), view.read(row)) for row in merge.per_task],
            )
            for merge in found.merges
        ]
        drawn = dot_plot(
            view.title, view.note, labels, series, x_label=view.label, references=view.marked, percent=view.percent
        )
        charts.append(plot(view.title, view.note, drawn, _kept_table(found.merges, view)))
    return "".join(charts)


def _kept_table(merges: Sequence[Merge], view: View) -> str:
    """What one view draws, beside the scores it is computed from."""
    head = ["merge", "task", "expert", "base", "expert’s", "merged", view.label]
    head += [view.beside[0]] if view.beside else []
    rows: list[list[str]] = []
    for merge in merges:
        for row in merge.per_task:
            scores = map(amount, (row.base_value, row.expert_value, row.merged_value))
            more = [view.beside[1](row)] if view.beside else []
            rows.append([merge.model, row.task, row.expert, *scores, shown(view.read(row), view.percent), *more])
    return table("With 95 % intervals", head, rows, "names")


def summary_table(found: Evaluation) -> str:
    """A row per merge: what it keeps over all own tasks, its mean, and where it keeps least."""
    rows = [
        [
            merge.model,
            shown(merge.gain_kept, percent=True),
            shown(merge.retention, percent=True),
            shown(merge.mean),
            f"{merge.worst.task}: {share(figure(merge.worst.retention))} of {merge.worst.expert}"
            if merge.worst
            else "–",
        ]
        for merge in found.merges
    ]
    head = ["merge", "gain kept", "retention", "mean score", "worst task"]
    return table("Means over own tasks, and the plain mean of the scores, with 95 % intervals", head, rows, "names")


def compared(found: Evaluation) -> str:
    """Differences of merges to the base and to one another."""
    bases = {model.name for model in found.models if model.role == "base"}
    chosen = pairs(found)
    to_base = [pair for pair in chosen if pair.b in bases]
    among = [pair for pair in chosen if pair.b not in bases]
    return _differences("Merges against the base", to_base) + _differences("Merges against one another", among)


def _differences(title: str, found: Sequence[Comparison]) -> str:
    if not found:
        return ""
    mean = all(pair.task == MEAN for pair in found)
    labels = [joined(pair.a, pair.b, " − ", 22) for pair in found]
    if not mean:
        labels = [joined(label, pair.task, ": ", 22) for label, pair in zip(labels, found, strict=True)]
    dots = [_dot(row, pair.difference, f"; {pair.verdict}") for row, pair in enumerate(found)]
    what = "mean score over tasks" if mean else "score"
    rows = [[pair.a, pair.b, pair.task, shown(pair.difference), pair.verdict] for pair in found]
    head = ["first", "second", "on", "first − second", "first is"]
    data = table(f"{title}: differences in {what}", head, rows, "names")
    note = f"Differences in {what}, paired over items; an interval that holds 0 (dashed) decides nothing."
    series = [Dots("", 0, dots, toggled=False)]
    drawn = dot_plot(title, note, labels, series, x_label="first − second", references=[0.0], label_width=180)
    return plot(title, note, drawn, data)


def verdict_matrix(found: Evaluation) -> str:
    """First − second per pair and task: coloured where decided."""
    cells = {(f"{pair.a} − {pair.b}", pair.task): pair for pair in found.comparisons}
    rows, tasks = (list(dict.fromkeys(key[side] for key in cells)) for side in (0, 1))
    digits = {task: places([p.difference for p in found.comparisons if p.task == task]) for task in tasks}
    strength = {"better": 0.5, "worse": -0.5, "undecided": 0.0}

    def cell(row: str, task: str) -> tuple[str, str, float] | None:
        pair = cells.get((row, task))
        if pair is None:
            return None
        return fixed(pair.difference.value, digits[task]), pair.verdict, strength[pair.verdict]

    counts = ", ".join(f"{sum(p.verdict == verdict for p in cells.values())} {verdict}" for verdict in strength)
    note = f"First minus second. Coloured where the 95 % interval excludes 0: {counts}."
    return matrix("Differences by task", note, rows, cell, tasks)


def joined(first: str, second: str, between: str, room: int) -> str:
    """Two names on a label of ``room`` letters; each is cut in its own middle, and the shorter as little as may be."""
    room -= len(between)
    most = max(room - columns(second), room // 2)
    first = fit(first, most, size=1)
    return f"{first}{between}{fit(second, room - columns(first), size=1)}"


def _interval(cell: Cell | None) -> Interval | None:
    return None if cell is None else cell.interval


def _dot(row: int, interval: Interval | None, note: str = "") -> Dot:
    return Dot(row, None) if interval is None else Dot(row, interval.value, interval.low, interval.high, note)
