"""Scores out of the JSON that harnesses print. Four shapes are understood:

- ``{"math": 0.41, "code": 0.3}``: a number for each task;
- ``{"math": {"accuracy": 0.41, "accuracy_stderr": 0.01, "n": 500}}``: metrics of each task, the first one to judge by;
- ``[{"task": "math", "metric": "accuracy", "value": 0.41, "items": [1, 0, …]}]``, also under a key ``scores``: full
  scores, of which only ``task`` and one of ``value`` and ``items`` are needed; ``stderr``, ``n``, ``k`` and
  ``higher_is_better`` may follow. With ``items``, in the same order for every model, comparisons are paired;
- the files of lm-evaluation-harness (evalchemy's too) and the JSON logs of inspect-ai.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard

from rlmerge.errors import RequestError, RunError, did_you_mean
from rlmerge.evaluate.evaluator import Score

_STDERR = "_stderr"
_EXTRAS = ("stderr", "n", "k", "higher_is_better")
_GRADES = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}

_HINT = 'Print {"task": 0.5}, {"task": {"metric": 0.5}} or [{"task": …, "value": …, "items": […]}].'
_MALFORMED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)
"""What reading JSON of another shape than expected can raise."""


def parse_scores(found: Any, tasks: Sequence[str], *, where: str) -> dict[str, list[Score]]:
    """Scores by task, each task's metrics in their order. ``tasks`` are those that were asked for.

    RunError naming ``where`` when the JSON has no known shape, or a figure is missing or not a finite number.
    """
    try:
        scores = list(_parse(found, tasks, where))
    except _MALFORMED as error:
        raise RunError(f"holds JSON of a shape that is not understood ({error!r})", where=where, hint=_HINT) from error
    by_task: dict[str, list[Score]] = {}
    for score in scores:
        by_task.setdefault(score.task, []).append(score)
    return by_task


def _parse(found: Any, tasks: Sequence[str], where: str) -> Iterable[Score]:
    if isinstance(found, list):
        for entry in found:
            yield from _parse_entry(entry, tasks, where)
    elif "eval" in found or "scores" in found or "value" in found or "items" in found:
        yield from _parse_entry(found, tasks, where)
    elif _is_lm_eval(found):
        for task in found["results"]:
            yield from _parse_lm_eval(found, task, label=task, where=where)
    else:
        for task, entry in found.items():
            yield from _parse_task(task, entry)


def _parse_entry(entry: Mapping[str, Any], tasks: Sequence[str], where: str) -> Iterable[Score]:
    """A full score, a list of them, or a log of inspect-ai."""
    if "eval" in entry:
        yield from _parse_inspect(entry, where)
    elif "scores" in entry:
        for score in entry["scores"]:
            yield from _parse_entry(score, tasks, where)
    else:
        task = entry["task"] if "task" in entry or len(tasks) != 1 else tasks[0]
        yield _parse_full(str(task), entry)


def _parse_task(task: str, entry: float | Mapping[str, Any]) -> Iterable[Score]:
    """One task's number, full score, or metrics."""
    if not isinstance(entry, Mapping):
        yield Score(task, "score", _number(entry, task))
        return
    if "value" in entry or "items" in entry:
        yield _parse_full(task, entry)
        return
    extras = _extras(entry)
    for name in entry:
        if name not in _EXTRAS and not name.endswith(_STDERR):
            stderr = entry.get(f"{name}{_STDERR}")
            more: dict[str, Any] = dict(extras)
            if stderr is not None:
                more["stderr"] = _number(stderr, f"{task}: {name}{_STDERR}")
            yield Score(task, name, _number(entry[name], f"{task}: {name}"), **more)


def _parse_full(task: str, entry: Mapping[str, Any]) -> Score:
    metric, extras = str(entry.get("metric", "score")), _extras(entry)
    if entry.get("items") is None:
        return Score(task, metric, _number(entry["value"], task), **extras)
    items = [_number(item, f"{task}: items") for item in entry["items"]]
    extras.pop("n", None)
    score = Score.of_items(task, metric, items, **{key: extras[key] for key in extras if key != "stderr"})
    value = entry.get("value")
    if value is not None and not math.isclose(_number(value, task), score.value, rel_tol=1e-3, abs_tol=1e-6):
        raise ValueError(f"{task}: the value is {value} and the mean of the items {score.value}; leave items out")
    return score


def _parse_inspect(log: Mapping[str, Any], where: str) -> Iterable[Score]:
    """The headline metric of each scorer of an inspect-ai log, items from its reductions over epochs."""
    if log.get("status") != "success":
        reason = (log.get("error") or {}).get("message", "no reason given")
        raise RunError(f"is the log of an evaluation that ended as {log.get('status')!r}: {reason}", where=where)
    task = str(log["eval"]["task"]).rpartition("/")[2]
    reductions = {entry["scorer"]: entry["samples"] for entry in log.get("reductions") or ()}
    epochs = int((log["eval"].get("config") or {}).get("epochs") or 1)
    scorers = log["results"]["scores"]
    for entry in scorers:
        metrics: dict[str, Any] = {name: found["value"] for name, found in entry["metrics"].items()}
        name = next(key for key in metrics if key not in ("stderr", "std", "var"))
        value = _number(metrics[name], f"{task}: {name}")
        items = _inspect_items(reductions.get(entry["name"]), value)
        yield Score(
            task,
            name if len(scorers) == 1 else f"{entry['name']}/{name}",
            value,
            stderr=None if metrics.get("stderr") is None else _number(metrics["stderr"], f"{task}: stderr"),
            n=None if entry.get("scored_samples") is None else int(entry["scored_samples"]),
            k=epochs if epochs > 1 else None,
            items=items,
        )


def _inspect_items(samples: Any, value: float) -> tuple[float, ...] | None:
    """Per-sample scores in order of their ids, if the metric is their mean."""
    try:
        ordered = sorted(samples, key=lambda sample: str(sample["sample_id"]))
        grades: list[Any] = [_GRADES.get(sample["value"], sample["value"]) for sample in ordered]
        items = [float(grade) for grade in grades]
    except (KeyError, TypeError, ValueError):
        return None
    close = items and math.isclose(math.fsum(items) / len(items), value, rel_tol=1e-6, abs_tol=1e-9)
    return tuple(items) if close else None


def _is_lm_eval(found: Mapping[str, Any]) -> bool:
    results = found.get("results")
    return isinstance(results, Mapping) and any("," in key for task in results.values() for key in task)


def _extras(entry: Mapping[str, Any]) -> dict[str, Any]:
    kinds: Mapping[str, Any] = {"stderr": float, "n": int, "k": int, "higher_is_better": bool}
    return {key: kinds[key](entry[key]) for key in _EXTRAS if entry.get(key) is not None}


def _number(value: Any, what: str) -> float:
    if not isinstance(value, int | float):
        raise TypeError(f"{what}: {value!r} is not a number")
    return float(value)


def read_lm_eval(file: Path, task: str, metric: str | None, *, label: str) -> list[Score]:
    """Every metric of one task in a results file of lm-eval, with per-item scores if its samples lie beside it.

    The first is ``metric`` (``name`` or ``name,filter``), or else the file's first. Scores are of the task ``label``.
    RequestError when the task has no such metric, RunError when the file cannot be understood or lacks the task.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        what = f"is not a results file of lm-eval ({error})"
        raise RunError(what, where=str(file), hint="Run the harness again.") from error
    scores = _parse_lm_eval(found, task, label=label, where=str(file), items=_Samples(file, task))
    if metric is None:
        return scores
    wanted = [score for score in scores if metric in (score.metric, score.metric.partition(",")[0])]
    if not wanted:
        hint = did_you_mean(metric, [score.metric for score in scores])
        raise RequestError(f"unknown metric {metric!r} of task {task!r}", where=str(file), hint=hint)
    return [wanted[0], *(score for score in scores if score is not wanted[0])]


class _Samples:
    """Per-item scores from the ``samples_TASK_TIME.jsonl`` beside ``results_TIME.json``."""

    def __init__(self, file: Path, task: str) -> None:
        time = file.stem.removeprefix("results_")
        self._rows: list[dict[str, Any]] = []
        try:
            with (file.parent / f"samples_{task}_{time}.jsonl").open(encoding="utf-8") as lines:
                self._rows = [dict(json.loads(line)) for line in lines]
        except (OSError, *_MALFORMED):
            self._rows = []

    def of(self, metric: str, kind: str, value: float) -> tuple[float, ...] | None:
        """The items' scores in order of their ids, if the metric is their mean; a corpus-wide metric is not."""
        rows = [row for row in self._rows if row.get("filter", "none") == kind]
        try:
            items = [float(row[metric]) for row in sorted(rows, key=lambda row: row["doc_id"])]
        except (KeyError, TypeError, ValueError):
            return None
        mean = math.fsum(items) / len(items) if items else math.nan
        # lm-eval takes its means in float64, so only the order of a sum may differ.
        return tuple(items) if math.isclose(mean, value, rel_tol=1e-9, abs_tol=1e-12) else None


def _parse_lm_eval(found: Any, task: str, *, label: str, where: str, items: _Samples | None = None) -> list[Score]:
    """Every metric of ``task`` in a parsed results file, in the file's order."""
    try:
        metrics: Mapping[str, Any] = found["results"][task]
        names = [key for key in metrics if "," in key and _STDERR not in key and _is_number(metrics[key])]
        direction = (found.get("higher_is_better") or {}).get(task) or {}
        config = (found.get("configs") or {}).get(task) or {}
        counts = (found.get("n-samples") or {}).get(task) or {}
        count = counts.get("effective", metrics.get("sample_len"))
        scores = [_lm_eval_score(key, metrics, direction, config, count, label, items) for key in names]
    except _MALFORMED as error:
        given = found.get("results") if isinstance(found, Mapping) else None
        known = ", ".join(map(str, given)) if isinstance(given, Mapping) else "nothing"
        hint = f"It holds scores of: {known}. A tag has none of its own: name one of its tasks."
        raise RunError(f"holds no scores of task {task!r}", where=where, hint=hint) from error
    if not scores:
        hint = "Look at the task's metric_list; with --predict_only there is none."
        raise RunError(f"holds no metric of task {task!r}", where=where, hint=hint)
    details = {"file": where, "task": task, "dataset": config.get("dataset_path")}
    return [replace(score, details=details) for score in scores]


def _lm_eval_score(
    key: str,
    metrics: Mapping[str, Any],
    direction: Mapping[str, Any],
    config: Mapping[str, Any],
    count: Any,
    label: str,
    items: _Samples | None,
) -> Score:
    metric, _, kind = key.partition(",")
    value, stderr = float(metrics[key]), metrics.get(f"{metric}{_STDERR},{kind}")
    samples = int(config.get("repeats") or 1)
    return Score(
        label,
        key,
        value,
        stderr=float(stderr) if _is_number(stderr) and math.isfinite(stderr) else None,
        n=None if count is None else int(count),
        k=samples if samples > 1 else None,
        higher_is_better=direction.get(metric) is not False,
        items=None if items is None else items.of(metric, kind, value),
    )


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
