"""Scores as the Hub's `.eval_results/*.yaml` files, which put them on a model's page and a benchmark's leaderboard.

The format is that of ``huggingface_hub.EvalResultEntry``: a benchmark data set, the task in its ``eval.yaml``, a value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from rlmerge._version import __version__
from rlmerge.errors import RequestError
from rlmerge.evaluate.report.summary import by_task
from rlmerge.evaluate.results import Cell, Evaluation
from rlmerge.frozen import frozen
from rlmerge.report.axes import finite
from rlmerge.report.tables import amount

FOLDER = ".eval_results"


@frozen(slots=True)
class Benchmark:
    """Where a score belongs: ``dataset`` on the Hub and its ``task``.

    With ``percent`` a score of 0.412 is written as 41.2. ``items`` is how many the whole benchmark has: scores on other
    numbers of items are not those of the benchmark and are not written. RequestError when ``dataset`` cannot be an id
    of the Hub.
    """

    dataset: str
    task: str
    percent: bool = True
    items: int | None = None
    revision: str | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*:\S+", f"{self.dataset}:{self.task}"):
            hint = "Write OWNER/NAME:TASK, such as openai/gsm8k:gsm8k."
            raise RequestError(f"'{self.dataset}:{self.task}' cannot be a task of a data set on the Hub", hint=hint)


KNOWN: Mapping[str, Benchmark] = {"gsm8k": Benchmark("openai/gsm8k", "gsm8k", items=1319)}
"""Benchmarks of the Hub by the task that ``rlmerge eval`` scores."""


def read_benchmark(text: str) -> tuple[str, Benchmark]:
    """``TASK=OWNER/NAME:TASK_ID[@REVISION]`` as a task and its benchmark; RequestError for another form."""
    task, _, place = text.partition("=")
    place, _, revision = place.partition("@")
    dataset, _, name = place.partition(":")
    if not task:
        raise RequestError(f"the benchmark {text!r} does not start with a task", hint="Write TASK=OWNER/NAME:TASK_ID.")
    return task, Benchmark(dataset, name, revision=revision or None)


def hub_files(
    found: Evaluation, benchmarks: Mapping[str, Benchmark] | None = None, *, date: str | None = None
) -> dict[str, str]:
    """Files by their path, ``MODEL/.eval_results/TASK.yaml``, for every model and every task with a benchmark.

    ``benchmarks`` are added to the known ones and win over them; ``date`` is ISO 8601, and without one the Hub takes
    that of the upload. RequestError, with the reason for each task, when not one score can be published.
    """
    places = {**KNOWN, **(benchmarks or {})}
    scores, reasons = by_task(found), dict[str, str]()
    folders = _unlike(model.name for model in found.models)
    titles = _unlike(task.task for task in found.tasks)
    files: dict[str, str] = {}
    for task in found.tasks:
        name = task.task
        for model in found.models:
            cell = scores.get((model.name, name))
            reason = _reason(cell, places.get(name))
            if cell is None or reason:
                reasons.setdefault(name, reason)
                continue
            path = f"{folders[model.name]}/{FOLDER}/{titles[name]}.yaml"
            files[path] = yaml.safe_dump([_entry(cell, places[name], date)], sort_keys=False, allow_unicode=True)
    if not files:
        why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items()) or "there are no tasks"
        known = ", ".join(KNOWN)
        raise RequestError(f"no score can be published ({why})", hint=f"Known benchmarks are {known}; name others.")
    return files


def _reason(cell: Cell | None, benchmark: Benchmark | None) -> str:
    """Why a score is not one of the benchmark, or an empty text."""
    if benchmark is None:
        return "no benchmark of the Hub is known for it"
    if cell is None:
        return "it has no score"
    if benchmark.items is not None and cell.score.n != benchmark.items:
        return f"it was scored on {cell.score.n} items, the benchmark has {benchmark.items}"
    return ""


def _entry(cell: Cell, benchmark: Benchmark, date: str | None) -> dict[str, Any]:
    score, interval = cell.score, cell.interval
    scale = 100 if benchmark.percent else 1
    dataset = {"id": benchmark.dataset, "task_id": benchmark.task}
    if benchmark.revision is not None:
        dataset["revision"] = benchmark.revision
    entry: dict[str, Any] = {"dataset": dataset, "value": round(scale * score.value, 6)}
    if date is not None:
        entry["date"] = date
    facts = [f"rlmerge {__version__}", score.metric]
    facts += [f"{score.k} samples an item"] if score.k is not None else []
    if finite(interval.low) and finite(interval.high):
        facts.append(f"95 % interval {amount(scale * interval.low)} to {amount(scale * interval.high)}")
    return {**entry, "notes": ", ".join(facts)}


def _unlike(names: Iterable[str]) -> dict[str, str]:
    """Names as plain file names, no two of them alike even where case does not count."""
    found: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")[:100] or "unnamed"
        taken, number, title = {other.lower() for other in found.values()}, 1, plain
        while title.lower() in taken:
            number += 1
            title = f"{plain}-{number}"
        found[name] = title
    return found
