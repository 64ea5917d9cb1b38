"""Scores out of the JSON that harnesses print. Four shapes are understood:

- ``{"math": 0.41, "code": 0.3}``: a number for each task;
- ``{"math": {"accuracy": 0.41, "accuracy_stderr": 0.01, "n": 500}}``: metrics of each task, the first one to judge by;
- ``[{"task": "math", "metric": "accuracy", "value": 0.41, "items": [1, 0, …]}]``, also under a key ``scores``: full
  scores, of which only ``task`` and one of ``value`` and ``items`` are needed; ``stderr``, ``n``, ``k`` and
  ``higher_is_better`` may follow. With ``items``, in the same order for every model, comparisons are paired;
- the files of lm-evaluation-harness (evalchemy's too) and the JSON logs of inspect-ai.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rlmerge.errors import RunError
from rlmerge.evaluate.lm_eval_results import parse_results
from rlmerge.evaluate.scores import Score

_STDERR = "_stderr"
_EXTRAS = ("stderr", "n", "k", "higher_is_better")
_GRADES = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}

_HINT = 'Print {"task": 0.5}, {"task": {"metric": 0.5}} or [{"task": …, "value": …, "items": […]}].'


def parse_scores(found: Any, tasks: Sequence[str], *, where: str) -> dict[str, list[Score]]:
    """Scores by task, each task's metrics in their order. ``tasks`` are those that were asked for.

    RunError naming ``where`` when the JSON has no known shape, or a figure is missing or not a finite number.
    """
    try:
        scores = list(_parse(found, tasks, where))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"holds JSON that is no scores ({error!r})", where=where, hint=_HINT) from error
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
            yield from parse_results(found, task, label=task, where=where)
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
            stderr = entry.get(f"{name}{_STDERR}", extras.get("stderr"))
            yield Score(task, name, _number(entry[name], f"{task}: {name}"), **{**extras, "stderr": stderr})


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
            stderr=metrics.get("stderr"),
            n=entry.get("scored_samples"),
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
    return {key: entry[key] for key in _EXTRAS if entry.get(key) is not None}


def _number(value: Any, what: str) -> float:
    if not isinstance(value, int | float):
        raise TypeError(f"{what}: {value!r} is no number")
    return float(value)
