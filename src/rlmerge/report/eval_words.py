"""What an evaluation says in words: the verdict on each merge, what its figures mean, and what to do next."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlmerge.text import plain

from .axes import fit
from .tables import amount, interval_text, share

Result = Mapping[str, Any]

NAMED = 3
"""Tasks up to which they are listed by name."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is found of one merge; ``level`` is that of a finding (good, info, warning, problem), ``label`` says why."""

    model: str
    level: str
    label: str
    title: str
    text: str


def headline(result: Result) -> str:
    """``3 merges, 3 experts and their base on 3 tasks; 4 models are from the cache``."""
    roles = [model["role"] for model in result["models"]]
    parts = [_count(roles.count(role), role) for role in ("merge", "expert") if role in roles]
    parts += ["their base"] if "base" in roles else []
    cached = sum(model["scored"] == "cached" for model in result["models"])
    known = "; all scores are from the cache" if cached == len(roles) else f"; {cached} models are from the cache"
    return f"{listed(parts)} on {_count(len(result['tasks']), 'task')}{known if cached else ''}"


def verdicts(result: Result) -> list[Verdict]:
    """One for each merge, in the order given."""
    return [_verdict(merge, _lost_elsewhere(result, merge)) for merge in result["merges"]]


def _verdict(merge: Result, elsewhere: Sequence[str]) -> Verdict:
    own, name = merge["per_task"], merge["model"]
    away = f"{'Other tasks: worse' if own else 'Worse'} than the base on {listed(elsewhere)}." if elsewhere else ""
    if not own:
        title = f"{name}: mean score {span(merge['mean'])}"
        text = "No task has an expert of its own here, so nothing can be kept of one."
        level = ("problem", "below the base") if elsewhere else ("info", "no own tasks")
        return Verdict(name, *level, title, f"{text} {away}".rstrip())
    kept = merge["gain_kept"]
    title = f"{name} keeps {span(kept, percent=True)} of the experts’ gain" if kept else f"{name}: gain not defined"
    worst = merge["worst"]
    text = [_against(own, "verdict_to_base", "the base"), _against(own, "verdict_to_expert", "its expert")]
    if worst:
        text.append(f"Worst task: {worst['task']}, {share(worst['retention'])} of {worst['expert']}")
    return Verdict(name, *_level(own, elsewhere), title, f"{'. '.join(text)}. {away}".rstrip())


def _lost_elsewhere(result: Result, merge: Result) -> list[str]:
    """Tasks that no expert owns on which the merge is worse than the base."""
    bases = {model["name"] for model in result["models"] if model["role"] == "base"}
    own = {task["task"] for task in result["tasks"] if task["experts"]}
    return [
        pair["task"]
        for pair in result["comparisons"]
        if (pair["a"], pair["verdict"]) == (merge["model"], "worse")
        and pair["b"] in bases
        and pair["task"] not in {*own, "mean"}
    ]


def _level(own: Sequence[Result], elsewhere: Sequence[str]) -> tuple[str, str]:
    if any(row["verdict_to_base"] == "worse" for row in own):
        return "problem", "below the base"
    if any(row["verdict_to_expert"] == "worse" for row in own):
        return "warning", "below its experts"
    if elsewhere:
        return "warning", "below the base elsewhere"
    if all(row["verdict_to_base"] == "better" for row in own):
        return "good", "nothing lost that shows"
    return "info", "undecided"


def _against(own: Sequence[Result], key: str, other: str) -> str:
    """``Better than the base on rev and cnt, undecided on shift``."""
    parts: list[str] = []
    for verdict in ("better", "worse", "undecided"):
        tasks = [row["task"] for row in own if row[key] == verdict]
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


def next_step(result: Result) -> str:
    """One sentence: what the scores suggest to do."""
    merges = result["merges"]
    if not merges:
        return (
            "Merge the experts (rlmerge inspect suggests a recipe) and score the result with the same tasks; "
            "what is scored here is not scored again."
        )
    own = [(merge, row) for merge in merges for row in merge["per_task"]]
    lost = [found for found in own if found[1]["verdict_to_expert"] == "worse"]
    if lost:
        merge, row = min(lost, key=lambda found: ordered(found[1]["retention"]))
        name = merge["model"]
        return (
            f"{name} loses most on {row['task']}. rlmerge inspect {name} --against {name}/rlmerge.lock.yaml shows how "
            "much of each expert arrived; where that is below 1, raise the weights, tuned on development data."
        )
    open_questions = [row for _, row in own if row["verdict_to_base"] == "undecided"]
    if open_questions:
        reach = max(_reach(row["difference_to_base"]) for row in open_questions)
        width = f" (now ±{amount(reach)} at the widest)" if reach > 0 else ""
        return f"Undecided comparisons want more items: four times as many halve the intervals{width}."
    return "Nothing here speaks against the merge; score tasks that none of the experts was trained on as well."


def short_names(result: Result, room: int) -> Result:
    """The same result with every text safe to print, and names of models and tasks cut to ``room`` columns, unlike."""
    short: dict[str, str] = {}
    for name in [*(model["name"] for model in result["models"]), *(task["task"] for task in result["tasks"])]:
        cut, number = fit(plain(name), room, size=1), 1
        while cut in short.values() and name not in short:
            number += 1
            cut = f"{fit(plain(name), room - 4, size=1)} ({number})"
        short.setdefault(name, cut)

    def shown(value: Any) -> Any:
        if isinstance(value, str):
            return short.get(value) or plain(value)
        if isinstance(value, Mapping):
            return {shown(key): shown(entry) for key, entry in value.items()}
        return [shown(entry) for entry in value] if isinstance(value, list | tuple) else value

    return shown(result)


def span(interval: Result | None, percent: bool = False) -> str:
    """An interval of the result in words; a dash where there is none."""
    if interval is None:
        return "–"
    return interval_text(interval["value"], interval["low"], interval["high"], percent)


def figure(interval: Result | None) -> float | None:
    """The value of an interval of the result, None where there is none."""
    return None if interval is None else interval["value"]


def ordered(interval: Result | None) -> float:
    """A key that sorts intervals by value, unknown ones last."""
    value = figure(interval)
    return math.inf if value is None else value


def pairs(result: Result) -> list[Result]:
    """The comparisons of means, or all of them where there is no mean over tasks; decided ones first."""
    found = [pair for pair in result["comparisons"] if pair["task"] == "mean"] or list(result["comparisons"])
    return sorted(found, key=lambda pair: pair["verdict"] == "undecided")


def divergence(model: Result, other: str) -> str:
    """The next-token KL of a model's health to ``other`` in nats: ∞ where it is not finite, a dash to itself."""
    if other not in model["kl_to"]:
        return "–"
    value = model["kl_to"][other]
    return "∞" if value is None else amount(value)


def references(models: Sequence[Result]) -> list[str]:
    """The models that a KL of a health section is measured to, in the order of its models."""
    named = list(dict.fromkeys(name for model in models for name in model["kl_to"]))
    order = [model["name"] for model in models]
    return sorted(named, key=lambda name: order.index(name) if name in order else len(order))


def fixed(value: float | None, digits: int) -> str:
    """``value`` with ``digits`` decimals and a true minus sign; a dash for none."""
    if value is None or not math.isfinite(value):
        return "–"
    shown = f"{value:.{digits}f}"
    return shown.lstrip("-") if float(shown) == 0 else shown.replace("-", "−")


def places(scores: Sequence[Result]) -> int:
    """Decimals that show two digits of the narrowest interval of one task's ``scores``; 3 where none is known."""
    reach = [found for found in map(_reach, scores) if found > 0]
    return min(4, max(0, 1 - math.floor(math.log10(min(reach))))) if reach else 3


def task_places(result: Result) -> dict[str, int]:
    """Decimals of each task's scores, see :func:`places`."""
    found = by_task(result)
    tasks = [task["task"] for task in result["tasks"]]
    return {task: places([score for (_, name), score in found.items() if name == task]) for task in tasks}


def kinds(result: Result) -> list[str]:
    """How tasks were scored, those scored alike together: ``rev, cnt: pass@1, exact, n = 500``."""
    alike: dict[tuple[Any, ...], list[str]] = {}
    for task in result["tasks"]:
        alike.setdefault((task["metric"], task["n"], task["k"], task["higher_is_better"]), []).append(task["task"])
    lines: list[str] = []
    for (metric, n, k, higher), tasks in alike.items():
        facts = [str(metric), *([f"n = {n}"] if n is not None else [])]
        facts += [f"{k} samples an item"] if k is not None else []
        facts += [] if higher else ["lower is better"]
        whole = "both tasks" if len(tasks) == 2 else f"all {len(tasks)} tasks"
        who = whole if len(tasks) == len(result["tasks"]) > 1 else ", ".join(tasks)
        lines.append(f"{who}: {', '.join(facts)}")
    return lines


def task_title(task: Result) -> str:
    """A task's name, with an arrow down where lower is better."""
    return task["task"] if task["higher_is_better"] else f"{task['task']} ↓"


def by_task(result: Result) -> dict[tuple[str, str], Result]:
    """Scores by model and task; of a task with several metrics that which the task names, or else the first."""
    judged = {task["task"]: task["metric"] for task in result["tasks"]}
    found: dict[tuple[str, str], Result] = {}
    for score in result["scores"]:
        key = (score["model"], score["task"])
        if key not in found or (found[key]["metric"] != score["metric"] == judged.get(score["task"])):
            found[key] = score
    return found


def _reach(interval: Result) -> float:
    """The longer side of an interval, 0 where it is not known."""
    value, low, high = interval["value"], interval["low"], interval["high"]
    return 0.0 if value is None or low is None or high is None else max(value - low, high - value)


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def listed(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return "".join(words) if len(words) < 2 else f"{', '.join(words[:-1])} and {words[-1]}"
