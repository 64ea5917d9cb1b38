"""An evaluation in a terminal: what was found of each merge first, then the figures behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlmerge.text import plain

from .console import MARKS, Column, fitted, render
from .eval_words import (
    by_task,
    divergence,
    figure,
    fixed,
    headline,
    kinds,
    next_step,
    ordered,
    pairs,
    places,
    references,
    short_names,
    task_places,
    task_title,
    verdicts,
)
from .tables import amount, share

if TYPE_CHECKING:
    from rich.console import RenderableType

Result = Mapping[str, Any]

ROWS = 24
"""Rows of merges and tasks up to which all are shown."""
PAIRS = 10


def eval_text(result: Result, *, width: int, color: bool) -> str:
    """The result of ``rlmerge eval`` (its JSON's keys) in at most ``width`` columns, 60 or more.

    Tables leave out their less important columns where they do not fit, and say which.
    """
    from rich.text import Text

    found = short_names(result, max(16, width // 3))
    parts: list[RenderableType] = [Text(headline(found), style="bold")]
    for verdict in verdicts(found):
        mark, style = MARKS[verdict.level]
        parts.append(Text.assemble((f"{mark} ", style), (verdict.title, "bold"), (f". {verdict.text}", "dim")))
    for heading, tables in _sections(found, width):
        parts += ["", Text(heading, style="bold cyan"), *tables]
    parts.append("")
    parts += [Text.assemble(("warning: ", "bold yellow"), str(warning)) for warning in found["warnings"]]
    parts += [Text.assemble(("next: ", "bold"), plain(next_step(result)))]
    return render(parts, width, color)


def _sections(result: Result, width: int) -> Iterator[tuple[str, list[RenderableType]]]:
    if result["tasks"]:
        yield "Scores", _scores(result, width)
    if any(merge["per_task"] for merge in result["merges"]):
        yield "What each merge keeps of its experts", _kept(result, width)
    if result["comparisons"]:
        yield "Compared with one another and with the base", _compared(result, width)
    if result["health"] and result["health"]["models"]:
        yield _health_heading(result["health"]), _health(result["health"]["models"], width)
    landscape = result["landscape"]
    if landscape and (landscape["barriers"] or landscape["sharpness"]):
        yield "Landscape", _landscape(landscape, width)


def _scores(result: Result, width: int) -> list[RenderableType]:
    """Models × tasks with intervals, in as many blocks of tasks as the width asks for."""
    found = by_task(result)
    names = [model["name"] for model in result["models"]]
    columns = [_score_column(task, names, found, brackets=True) for task in result["tasks"]]
    name = Column("model", names, left=True)
    role = Column("role", [model["role"] for model in result["models"]], rank=1, left=True)
    note = ""
    if sum(column.width + 2 for column in (name, role, *columns)) > width:
        columns = [_score_column(task, names, found, brackets=False) for task in result["tasks"]]
        note = "±: the longer side of the 95 % interval. "
    blocks = _blocks(columns, width - min(name.width, width // 3))
    first = [name, role] if len(blocks) == 1 else [name]
    tables: list[RenderableType] = []
    for block in blocks:
        tables += [*([""] if tables else []), fitted([*first, *block], width)[0]]
    return [*tables, _dim(note + "; ".join(kinds(result)))]


def _blocks(columns: Sequence[Column], width: int) -> list[Sequence[Column]]:
    """The columns in as few equal blocks as ``width`` allows, at least one column in each."""
    for count in range(1, len(columns) + 1):
        size = -(-len(columns) // count)
        blocks = [columns[first : first + size] for first in range(0, len(columns), size)]
        if all(sum(column.width + 2 for column in block) <= width for block in blocks):
            return blocks
    return [[column] for column in columns]


def _score_column(
    task: Result, names: Sequence[str], found: Mapping[tuple[str, str], Result], *, brackets: bool
) -> Column:
    scores = [found.get((name, task["task"])) for name in names]
    digits = places([score for score in scores if score])
    return Column(task_title(task), [_score(score, digits, brackets) for score in scores])


def _score(score: Result | None, digits: int, brackets: bool) -> str:
    if score is None or score["value"] is None:
        return "–"
    value, low, high = (score[key] for key in ("value", "low", "high"))
    if low is None or high is None:
        return fixed(value, digits)
    if brackets:
        return f"{fixed(value, digits)} [{fixed(low, digits)}, {fixed(high, digits)}]"
    return f"{fixed(value, digits)} ±{fixed(max(value - low, high - value), digits)}"


def _kept(result: Result, width: int) -> list[RenderableType]:
    """A row per merge and own task; of many, each merge's worst."""
    merges = result["merges"]
    digits = task_places(result)
    count = sum(len(merge["per_task"]) for merge in merges)
    most = count if count <= ROWS else max(2, ROWS // len(merges))
    named: list[tuple[str, Result]] = []
    for merge in merges:
        worst = sorted(merge["per_task"], key=lambda row: ordered(row["retention"]))[:most]
        shown = [row for row in merge["per_task"] if row in worst]
        named += [(merge["model"] if i == 0 else "", row) for i, row in enumerate(shown)]
    rows = [row for _, row in named]
    columns = [
        Column("merge", [name for name, _ in named], left=True),
        Column("task", [row["task"] for row in rows], left=True),
        Column("expert", [row["expert"] for row in rows], rank=4, left=True),
        Column("base", [fixed(row["base_value"], digits[row["task"]]) for row in rows], rank=5),
        Column("expert's", [fixed(row["expert_value"], digits[row["task"]]) for row in rows], rank=5),
        Column("merged", [fixed(row["merged_value"], digits[row["task"]]) for row in rows], rank=3),
        Column("retention", [share(figure(row["retention"])) for row in rows]),
        Column("95 %", [_ends(row["retention"]) for row in rows], rank=2),
        Column("degradation", [amount(figure(row["degradation"]), percent=True) for row in rows], rank=7),
        Column("gain kept", [_percent(row["gain_kept"]) for row in rows], rank=1),
        Column("95 % of gain", [_ends(row["gain_kept"]) for row in rows], rank=6),
        Column("to base", [row["verdict_to_base"] for row in rows], left=True),
        Column("to expert", [row["verdict_to_expert"] for row in rows], left=True),
    ]
    worst = f"The {most} worst tasks of each merge, of {count} rows. " if len(named) < count else ""
    return _with_note(columns, width, worst)


def _compared(result: Result, width: int) -> list[RenderableType]:
    """Pairs of models by mean score, with how often the tasks decide."""
    tally: dict[tuple[str, str], Counter[str]] = {}
    for pair in result["comparisons"]:
        if pair["task"] != "mean":
            tally.setdefault((pair["a"], pair["b"]), Counter())[pair["verdict"]] += 1
    found = pairs(result)
    shown = found[:PAIRS]
    counts = [tally.get((pair["a"], pair["b"]), Counter()) for pair in shown]
    digits = places([pair["difference"] for pair in shown])
    columns = [
        Column("a", [pair["a"] for pair in shown], left=True),
        Column("b", [pair["b"] for pair in shown], left=True),
        Column("on", [pair["task"] for pair in shown], left=True),
        Column("a − b", [fixed(pair["difference"]["value"], digits) for pair in shown]),
        Column("95 %", [_ends(pair["difference"], digits) for pair in shown], rank=1),
        Column("a is", [pair["verdict"] for pair in shown], left=True),
        Column("by task", [_tally(count) for count in counts], rank=2, left=True),
    ]
    cut = f"{len(shown)} of {len(found)} comparisons, decided ones first. " if len(shown) < len(found) else ""
    return _with_note(columns, width, cut)


def _tally(count: Counter[str]) -> str:
    return ", ".join(f"{count[verdict]} {verdict}" for verdict in ("better", "worse", "undecided") if count[verdict])


def _health_heading(health: Result) -> str:
    return f"Generation health on {health['prompts']} prompts, at most {health['max_new_tokens']} new tokens"


def _health(models: Sequence[Result], width: int) -> list[RenderableType]:
    others = references(models)
    columns = [
        Column("model", [model["name"] for model in models], left=True),
        Column("looping", [share(model["length_cap_repetition"]) for model in models]),
        Column("seq-rep-4", [share(model["seq_rep_4"]) for model in models], rank=1),
        Column("stops", [share(model["stop_rate"]) for model in models]),
        Column("length", [amount(model["length"]["mean"]) for model in models]),
        Column("p90", [amount(model["length"]["p90"]) for model in models], rank=2),
        Column("entropy", [amount(model["entropy"]) for model in models], rank=3),
        *(
            Column(f"KL to {name}", [divergence(model, name) for model in models], rank=4 + i)
            for i, name in enumerate(others)
        ),
    ]
    note = "Looping: at the length cap with an n-gram repeated 8 times or more at the end. Entropy and KL in nats. "
    return _with_note(columns, width, note)


def _landscape(landscape: Result, width: int) -> list[RenderableType]:
    """Of every pair its highest barrier, of every model the task on which it is sharpest."""
    barriers = _highest(landscape["barriers"], ("a", "b"), "barrier")
    sharpness = _highest(landscape["sharpness"], ("model", "radius"), "mean")
    columns = [
        Column("from", [one["a"] for one in barriers], left=True),
        Column("to", [one["b"] for one in barriers], left=True),
        Column("highest barrier, nats", [amount(one["barrier"]) for one in barriers]),
        Column("on", [one["task"] for one in barriers], rank=1, left=True),
    ]
    parts = _with_note(columns, width) if barriers else []
    columns = [
        Column("model", [one["model"] for one in sharpness], left=True),
        Column("radius", [amount(one["radius"]) for one in sharpness], rank=1),
        Column("loss rises by at most", [amount(one["max"]) for one in sharpness], rank=3),
        Column("in the mean", [amount(one["mean"]) for one in sharpness]),
        Column("on, the sharpest task", [one["task"] for one in sharpness], rank=2, left=True),
    ]
    between = [""] if barriers and sharpness else []
    return [*parts, *between, *(_with_note(columns, width) if sharpness else [])]


def _highest(found: Sequence[Result], key: tuple[str, str], figure: str) -> list[Result]:
    """Of the entries alike in ``key`` the one with the highest ``figure``."""
    best: dict[tuple[Any, ...], Result] = {}
    for one in found:
        known = best.setdefault(tuple(one[name] for name in key), one)
        if one[figure] is not None and (known[figure] is None or one[figure] > known[figure]):
            best[tuple(one[name] for name in key)] = one
    return list(best.values())


def _with_note(columns: Sequence[Column], width: int, note: str = "") -> list[RenderableType]:
    table, gone = fitted(columns, width)
    left_out = f"Left out at this width: {', '.join(dict.fromkeys(gone))}." if gone else ""
    return [table, *([_dim(note + left_out)] if note or left_out else [])]


def _dim(text: str) -> RenderableType:
    from rich.text import Text

    return Text(text.strip(), style="dim")


def _ends(interval: Result | None, digits: int | None = None) -> str:
    """``[0.48, 0.54]`` with ``digits`` decimals, or in percent."""
    if interval is None or interval["low"] is None or interval["high"] is None:
        return "–"
    ends = (interval["low"], interval["high"])
    return f"[{', '.join(_percent({'value': end}) if digits is None else fixed(end, digits) for end in ends)}]"


def _percent(interval: Result | None) -> str:
    value = figure(interval)
    return "–" if value is None else f"{fixed(100 * value, 0)} %"
