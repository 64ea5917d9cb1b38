"""What an evaluation says in sentences: the verdict on each merge, what its figures mean, and what to do next."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

from rlmerge.evaluate.compare import MEAN
from rlmerge.evaluate.health import ModelHealth
from rlmerge.evaluate.results import Cell, Comparison, Evaluation, Merge, Survival, Task
from rlmerge.evaluate.statistics import Interval
from rlmerge.frozen import frozen
from rlmerge.report.axes import finite
from rlmerge.report.names import cut_names
from rlmerge.report.tables import amount, interval_text, share
from rlmerge.text import plain

NAMED = 3
"""Tasks up to which they are listed by name."""


@frozen(slots=True)
class Verdict:
    """What is found of one merge; ``level`` is that of a finding (good, info, warning, problem), ``label`` says why."""

    model: str
    level: str
    label: str
    title: str
    text: str


def headline(found: Evaluation) -> str:
    """``3 merges, 3 experts and their base on 3 tasks; 4 models are from the cache``."""
    roles = [model.role for model in found.models]
    parts = [_count(roles.count(role), role) for role in ("merge", "expert") if role in roles]
    parts += ["their base"] if "base" in roles else []
    cached = sum(model.scored == "cached" for model in found.models)
    known = "; all scores are from the cache" if cached == len(roles) else f"; {cached} models are from the cache"
    return f"{listed(parts)} on {_count(len(found.tasks), 'task')}{known if cached else ''}"


def verdicts(found: Evaluation) -> list[Verdict]:
    """One for each merge, in the order given."""
    return [_verdict(merge, _lost_elsewhere(found, merge)) for merge in found.merges]


def _verdict(merge: Merge, elsewhere: Sequence[str]) -> Verdict:
    own, name = merge.per_task, merge.model
    away = f"{'Other tasks: worse' if own else 'Worse'} than the base on {listed(elsewhere)}." if elsewhere else ""
    if not own:
        title = f"{name}: mean score {shown(merge.mean)}"
        text = "No task has an expert of its own here, so nothing can be kept of one."
        level = ("problem", "below the base") if elsewhere else ("info", "no own tasks")
        return Verdict(name, *level, title, f"{text} {away}".rstrip())
    kept = merge.gain_kept
    title = f"{name} keeps {shown(kept, percent=True)} of the experts’ gain" if kept else f"{name}: gain not defined"
    text = [
        _against([(row.task, row.verdict_to_base) for row in own], "the base"),
        _against([(row.task, row.verdict_to_expert) for row in own], "its expert"),
    ]
    worst = merge.worst
    if worst is not None:
        text.append(f"Worst task: {worst.task}, {share(figure(worst.retention))} of {worst.expert}")
    return Verdict(name, *_level(own, elsewhere), title, f"{'. '.join(text)}. {away}".rstrip())


def _lost_elsewhere(found: Evaluation, merge: Merge) -> list[str]:
    """Tasks that no expert owns on which the merge is worse than the base."""
    bases = {model.name for model in found.models if model.role == "base"}
    own = {task.task for task in found.tasks if task.experts}
    return [
        pair.task
        for pair in found.comparisons
        if (pair.a, pair.verdict) == (merge.model, "worse") and pair.b in bases and pair.task not in {*own, MEAN}
    ]


def _level(own: Sequence[Survival], elsewhere: Sequence[str]) -> tuple[str, str]:
    if any(row.verdict_to_base == "worse" for row in own):
        return "problem", "below the base"
    if any(row.verdict_to_expert == "worse" for row in own):
        return "warning", "below its experts"
    if elsewhere:
        return "warning", "below the base elsewhere"
    if all(row.verdict_to_base == "better" for row in own):
        return "good", "nothing lost that shows"
    return "info", "undecided"


def _against(own: Sequence[tuple[str, str]], other: str) -> str:
    """``Better than the base on rev and cnt, undecided on shift``, from tasks and verdicts."""
    parts: list[str] = []
    for verdict in ("better", "worse", "undecided"):
        tasks = [task for task, found in own if found == verdict]
        if not tasks:
            continue
        opening = f"undecided against {other}" if verdict == "undecided" else f"{verdict} than {other}"
        parts.append(f"{verdict if parts else opening} on {_where(tasks, len(own), again=bool(parts))}")
    text = ", ".join(parts)
    return text[:1].upper() + text[1:]


def _where(tasks: Sequence[str], whole: int, *, again: bool) -> str:
    if len(tasks) == whole > 1:
        return "both own tasks" if whole == 2 else f"all {whole} own tasks"
    if len(tasks) <= NAMED:
        return listed(tasks)
    return str(len(tasks)) if again else f"{len(tasks)} of {whole} own tasks"


def next_step(found: Evaluation) -> str:
    """One sentence: what the scores suggest to do."""
    if not found.merges:
        return (
            "Merge the experts (rlmerge inspect suggests a recipe) and score the result with the same tasks; "
            "what is scored here is not scored again."
        )
    own = [(merge.model, row) for merge in found.merges for row in merge.per_task]
    lost = [(name, row) for name, row in own if row.verdict_to_expert == "worse"]
    if lost:
        name, row = min(lost, key=lambda pair: ordered(pair[1].retention))
        return (
            f"{name} loses most on {row.task}. rlmerge inspect {name} --against {name}/rlmerge.lock.yaml shows how "
            "much of each expert arrived; where that is below 1, raise the weights, tuned on development data."
        )
    undecided = [row.difference_to_base for _, row in own if row.verdict_to_base == "undecided"]
    if undecided:
        widest = max(map(half_width, undecided))
        width = f" (now ±{amount(widest)} at the widest)" if widest > 0 else ""
        return f"Undecided comparisons want more items: four times as many halve the intervals{width}."
    return "Nothing here speaks against the merge; score tasks that none of the experts was trained on as well."


def shortened(found: Evaluation, room: int) -> Evaluation:
    """The same with every text safe to print, and names of models and tasks cut to ``room`` columns, unlike."""
    short = cut_names([*(model.name for model in found.models), *(task.task for task in found.tasks)], room)
    return _renamed(found, lambda text: short.get(text) or plain(text))


def _renamed(value: Any, rename: Callable[[str], str]) -> Any:
    """``value`` with every text in it renamed, all the way down."""
    if isinstance(value, str):
        return rename(value)
    if isinstance(value, tuple):
        return tuple(_renamed(entry, rename) for entry in value)
    if isinstance(value, Mapping):
        return {_renamed(key, rename): _renamed(entry, rename) for key, entry in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _renamed(getattr(value, field.name), rename) for field in fields(value)})
    return value


def shown(interval: Interval | None, percent: bool = False) -> str:
    """An interval in words; a dash where there is none."""
    return "–" if interval is None else interval_text(interval.value, interval.low, interval.high, percent)


def figure(interval: Interval | None) -> float | None:
    """The value of an interval, None where there is none."""
    return None if interval is None else interval.value


def ordered(interval: Interval | None) -> float:
    """A key that sorts intervals by value, unknown ones last."""
    return math.inf if interval is None else interval.value


def pairs(found: Evaluation) -> list[Comparison]:
    """The comparisons of means, or all of them where there is no mean over tasks; decided ones first."""
    chosen = [pair for pair in found.comparisons if pair.task == MEAN] or list(found.comparisons)
    return sorted(chosen, key=lambda pair: pair.verdict == "undecided")


def divergence(model: ModelHealth, other: str) -> str:
    """The next-token KL of a model's health to ``other`` in nats: ∞ where it is not finite, a dash to itself."""
    if other not in model.kl_to:
        return "–"
    value = model.kl_to[other]
    return amount(value) if math.isfinite(value) else "∞"


def references(models: Sequence[ModelHealth]) -> list[str]:
    """The models that a KL of a health section is measured to, in the order of its models."""
    named = list(dict.fromkeys(name for model in models for name in model.kl_to))
    order = [model.name for model in models]
    return sorted(named, key=lambda name: order.index(name) if name in order else len(order))


def fixed(value: float | None, digits: int) -> str:
    """``value`` with ``digits`` decimals and a true minus sign; a dash for none."""
    if not finite(value):
        return "–"
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def places(intervals: Sequence[Interval]) -> int:
    """Decimals that show two digits of the narrowest of one task's ``intervals``; 3 where none is known."""
    widths = [width for width in map(half_width, intervals) if width > 0]
    return min(4, max(0, 1 - math.floor(math.log10(min(widths))))) if widths else 3


def task_places(found: Evaluation) -> dict[str, int]:
    """Decimals of each task's scores, see :func:`places`."""
    return {
        task.task: places([cell.interval for cell in found.scores if cell.score.task == task.task])
        for task in found.tasks
    }


def scoring_notes(found: Evaluation) -> list[str]:
    """How tasks were scored, those scored alike together: ``rev, cnt: pass@1, exact, n = 500``."""
    alike: dict[tuple[Any, ...], list[str]] = {}
    for task in found.tasks:
        alike.setdefault((task.metric, task.n, task.k, task.higher_is_better), []).append(task.task)
    lines: list[str] = []
    for (metric, n, k, higher), tasks in alike.items():
        facts = [str(metric), *([f"n = {n}"] if n is not None else [])]
        facts += [f"{k} samples an item"] if k is not None else []
        facts += [] if higher else ["lower is better"]
        whole = "both tasks" if len(tasks) == 2 else f"all {len(tasks)} tasks"
        who = whole if len(tasks) == len(found.tasks) > 1 else ", ".join(tasks)
        lines.append(f"{who}: {', '.join(facts)}")
    return lines


def task_title(task: Task) -> str:
    """A task's name, with an arrow down where lower is better."""
    return task.task if task.higher_is_better else f"{task.task} ↓"


def by_task(found: Evaluation) -> dict[tuple[str, str], Cell]:
    """Scores by model and task."""
    return {(cell.model, cell.score.task): cell for cell in found.scores}


def half_width(interval: Interval) -> float:
    """The longer side of an interval, 0 where it is not known."""
    if not (finite(interval.value) and finite(interval.low) and finite(interval.high)):
        return 0.0
    return max(interval.value - interval.low, interval.high - interval.value)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return "".join(names) if len(names) < 2 else f"{', '.join(names[:-1])} and {names[-1]}"
