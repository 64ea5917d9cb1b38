"""An evaluation in a terminal: what was found of each merge first, then the figures behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from rlmerge.evaluate.compare import MEAN
from rlmerge.evaluate.health import Health
from rlmerge.evaluate.landscape.loss import Landscape
from rlmerge.evaluate.report.summary import (
    by_task,
    divergence,
    figure,
    fixed,
    headline,
    next_step,
    ordered,
    pairs,
    places,
    references,
    scoring_notes,
    shortened,
    task_places,
    task_title,
    verdicts,
)
from rlmerge.evaluate.results import Cell, Evaluation, Survival, Task
from rlmerge.evaluate.statistics import Interval
from rlmerge.report.axes import finite
from rlmerge.report.console import MARKS, Column, fitted, render, warning_lines
from rlmerge.report.tables import amount, share
from rlmerge.text import plain

if TYPE_CHECKING:
    from rich.console import RenderableType

T = TypeVar("T")

ROWS = 24
"""Rows of merges and tasks up to which all are shown."""
PAIRS = 10


def eval_text(found: Evaluation, *, width: int, color: bool) -> str:
    """An evaluation in at most ``width`` columns, 60 or more.

    Tables leave out their less important columns where they do not fit, and say which.
    """
    from rich.text import Text

    short = shortened(found, max(16, width // 3))
    parts: list[RenderableType] = [Text(headline(short), style="bold")]
    for verdict in verdicts(short):
        mark, style = MARKS[verdict.level]
        parts.append(Text.assemble((f"{mark} ", style), (verdict.title, "bold"), (f". {verdict.text}", "dim")))
    for heading, tables in _sections(short, width):
        parts += ["", Text(heading, style="bold cyan"), *tables]
    parts += ["", *warning_lines(short.warnings)]
    parts.append(Text.assemble(("next: ", "bold"), plain(next_step(found))))
    return render(parts, width, color)


def _sections(found: Evaluation, width: int) -> Iterator[tuple[str, list[RenderableType]]]:
    if found.tasks:
        yield "Scores", _scores(found, width)
    if any(merge.per_task for merge in found.merges):
        yield "What each merge keeps of its experts", _kept(found, width)
    if found.comparisons:
        yield "Compared with one another and with the base", _compared(found, width)
    health, landscape = found.health, found.landscape
    if health and health.models:
        heading = f"Generation health on {health.prompts} prompts, at most {health.max_new_tokens} new tokens"
        yield heading, _health(health, width)
    if landscape and (landscape.barriers or landscape.sharpness):
        yield "Landscape", _landscape(landscape, width)


def _scores(found: Evaluation, width: int) -> list[RenderableType]:
    """Models × tasks with intervals, in as many blocks of tasks as the width asks for."""
    cells = by_task(found)
    names = [model.name for model in found.models]
    columns = [_score_column(task, names, cells, brackets=True) for task in found.tasks]
    name = Column("model", names, left=True)
    role = Column("role", [model.role for model in found.models], rank=1, left=True)
    note = ""
    if sum(column.width + 2 for column in (name, role, *columns)) > width:
        columns = [_score_column(task, names, cells, brackets=False) for task in found.tasks]
        note = "±: the longer side of the 95 % interval. "
    blocks = _blocks(columns, width - min(name.width, width // 3))
    first = [name, role] if len(blocks) == 1 else [name]
    tables: list[RenderableType] = []
    for block in blocks:
        tables += [*([""] if tables else []), fitted([*first, *block], width)[0]]
    return [*tables, _dim(note + "; ".join(scoring_notes(found)))]


def _blocks(columns: Sequence[Column], width: int) -> list[Sequence[Column]]:
    """The columns in as few equal blocks as ``width`` allows, at least one column in each."""
    for count in range(1, len(columns) + 1):
        size = -(-len(columns) // count)
        blocks = [columns[first : first + size] for first in range(0, len(columns), size)]
        if all(sum(column.width + 2 for column in block) <= width for block in blocks):
            return blocks
    return [[column] for column in columns]


def _score_column(task: Task, names: Sequence[str], cells: Mapping[tuple[str, str], Cell], *, brackets: bool) -> Column:
    known = [cells.get((name, task.task)) for name in names]
    digits = places([cell.interval for cell in known if cell])
    return Column(task_title(task), [_score(cell, digits, brackets) for cell in known])


def _score(cell: Cell | None, digits: int, brackets: bool) -> str:
    if cell is None:
        return "–"
    value, low, high = cell.interval.value, cell.interval.low, cell.interval.high
    if not (finite(low) and finite(high)):
        return fixed(value, digits)
    if brackets:
        return f"{fixed(value, digits)} [{fixed(low, digits)}, {fixed(high, digits)}]"
    return f"{fixed(value, digits)} ±{fixed(max(value - low, high - value), digits)}"


def _kept(found: Evaluation, width: int) -> list[RenderableType]:
    """A row per merge and own task; of many, each merge's worst."""
    digits = task_places(found)
    count = sum(len(merge.per_task) for merge in found.merges)
    most = count if count <= ROWS else max(2, ROWS // len(found.merges))
    named: list[tuple[str, Survival]] = []
    for merge in found.merges:
        worst = sorted(merge.per_task, key=lambda row: ordered(row.retention))[:most]
        chosen = [row for row in merge.per_task if row in worst]
        named += [(merge.model if i == 0 else "", row) for i, row in enumerate(chosen)]
    rows = [row for _, row in named]
    columns = [
        Column("merge", [name for name, _ in named], left=True),
        Column("task", [row.task for row in rows], left=True),
        Column("expert", [row.expert for row in rows], rank=4, left=True),
        Column("base", [fixed(row.base_value, digits[row.task]) for row in rows], rank=5),
        Column("expert's", [fixed(row.expert_value, digits[row.task]) for row in rows], rank=5),
        Column("merged", [fixed(row.merged_value, digits[row.task]) for row in rows], rank=3),
        Column("retention", [share(figure(row.retention)) for row in rows]),
        Column("95 %", [_ends(row.retention) for row in rows], rank=2),
        Column("degradation", [amount(figure(row.degradation), percent=True) for row in rows], rank=7),
        Column("gain kept", [_percent(figure(row.gain_kept)) for row in rows], rank=1),
        Column("95 % of gain", [_ends(row.gain_kept) for row in rows], rank=6),
        Column("to base", [row.verdict_to_base for row in rows], left=True),
        Column("to expert", [row.verdict_to_expert for row in rows], left=True),
    ]
    worst = f"The {most} worst tasks of each merge, of {count} rows. " if len(named) < count else ""
    return _with_note(columns, width, worst)


def _compared(found: Evaluation, width: int) -> list[RenderableType]:
    """Pairs of models by mean score, with how often the tasks decide."""
    tally: dict[tuple[str, str], Counter[str]] = {}
    for pair in found.comparisons:
        if pair.task != MEAN:
            tally.setdefault((pair.a, pair.b), Counter())[pair.verdict] += 1
    ranked = pairs(found)
    first = ranked[:PAIRS]
    counts = [tally.get((pair.a, pair.b), Counter()) for pair in first]
    digits = places([pair.difference for pair in first])
    columns = [
        Column("a", [pair.a for pair in first], left=True),
        Column("b", [pair.b for pair in first], left=True),
        Column("on", [pair.task for pair in first], left=True),
        Column("a − b", [fixed(pair.difference.value, digits) for pair in first]),
        Column("95 %", [_ends(pair.difference, digits) for pair in first], rank=1),
        Column("a is", [pair.verdict for pair in first], left=True),
        Column("by task", [_tally(count) for count in counts], rank=2, left=True),
    ]
    cut = f"{len(first)} of {len(ranked)} comparisons, decided ones first. " if len(first) < len(ranked) else ""
    return _with_note(columns, width, cut)


def _tally(count: Counter[str]) -> str:
    return ", ".join(f"{count[verdict]} {verdict}" for verdict in ("better", "worse", "undecided") if count[verdict])


def _health(health: Health, width: int) -> list[RenderableType]:
    models = health.models
    columns = [
        Column("model", [model.name for model in models], left=True),
        Column("looping", [share(model.length_cap_repetition) for model in models]),
        Column("seq-rep-4", [share(model.seq_rep_4) for model in models], rank=1),
        Column("stops", [share(model.stop_rate) for model in models]),
        Column("length", [amount(model.length.mean) for model in models]),
        Column("p90", [amount(model.length.p90) for model in models], rank=2),
        Column("entropy", [amount(model.entropy) for model in models], rank=3),
        *(
            Column(f"KL to {name}", [divergence(model, name) for model in models], rank=4 + i)
            for i, name in enumerate(references(models))
        ),
    ]
    note = "Looping: at the length cap with an n-gram repeated 8 times or more at the end. Entropy and KL in nats. "
    return _with_note(columns, width, note)


def _landscape(landscape: Landscape, width: int) -> list[RenderableType]:
    """Of every pair its highest barrier, of every model the task on which it is sharpest."""
    barriers = _highest(landscape.barriers, lambda one: (one.a, one.b), lambda one: one.barrier)
    sharpness = _highest(landscape.sharpness, lambda one: (one.model, one.radius), lambda one: one.mean)
    columns = [
        Column("from", [one.a for one in barriers], left=True),
        Column("to", [one.b for one in barriers], left=True),
        Column("highest barrier, nats", [amount(one.barrier) for one in barriers]),
        Column("on", [one.task for one in barriers], rank=1, left=True),
    ]
    parts = _with_note(columns, width) if barriers else []
    columns = [
        Column("model", [one.model for one in sharpness], left=True),
        Column("radius", [amount(one.radius) for one in sharpness], rank=1),
        Column("loss rises by at most", [amount(one.max) for one in sharpness], rank=3),
        Column("in the mean", [amount(one.mean) for one in sharpness]),
        Column("on, the sharpest task", [one.task for one in sharpness], rank=2, left=True),
    ]
    between = [""] if barriers and sharpness else []
    return [*parts, *between, *(_with_note(columns, width) if sharpness else [])]


def _highest(found: Sequence[T], key: Callable[[T], object], value: Callable[[T], float]) -> list[T]:
    """Of the entries alike in ``key`` the one with the highest ``value``, NaN being the lowest."""
    best: dict[object, T] = {}
    for one in found:
        known = best.setdefault(key(one), one)
        if value(one) > value(known) or value(known) != value(known):
            best[key(one)] = one
    return list(best.values())


def _with_note(columns: Sequence[Column], width: int, note: str = "") -> list[RenderableType]:
    table, gone = fitted(columns, width)
    left_out = f"Left out at this width: {', '.join(dict.fromkeys(gone))}." if gone else ""
    return [table, *([_dim(note + left_out)] if note or left_out else [])]


def _dim(text: str) -> RenderableType:
    from rich.text import Text

    return Text(text.strip(), style="dim")


def _ends(interval: Interval | None, digits: int | None = None) -> str:
    """``[0.48, 0.54]`` with ``digits`` decimals, or in percent."""
    if interval is None or not (finite(interval.low) and finite(interval.high)):
        return "–"
    ends = (interval.low, interval.high)
    return f"[{', '.join(_percent(end) if digits is None else fixed(end, digits) for end in ends)}]"


def _percent(value: float | None) -> str:
    return f"{fixed(100 * value, 0)} %" if finite(value) else "–"
