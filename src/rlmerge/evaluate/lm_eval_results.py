"""Scores out of the JSON that lm-evaluation-harness writes (and evalchemy after it)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

from rlmerge.errors import RequestError, RunError, did_you_mean
from rlmerge.evaluate.scores import Score

_STDERR = "_stderr"


def read_results(file: Path, task: str, metric: str | None, *, label: str) -> list[Score]:
    """Every metric of one task in a results file, with per-item scores from the samples beside it, if there are any.

    The first is ``metric`` (``name`` or ``name,filter``), or else the file's first. Scores are of the task ``label``.
    RequestError when the task has no such metric, RunError when the file is no result, lacks the task, or is not a
    number.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"is no lm-eval result ({error})", where=str(file), hint="Run the harness again.") from error
    scores = parse_results(found, task, label=label, where=str(file), items=_Samples(file, task))
    if metric is None:
        return scores
    wanted = [score for score in scores if metric in (score.metric, score.metric.partition(",")[0])]
    if not wanted:
        hint = did_you_mean(metric, [score.metric for score in scores])
        raise RequestError(f"has no metric {metric!r} of task {task!r}", where=str(file), hint=hint)
    return [wanted[0], *(score for score in scores if score is not wanted[0])]


class _Samples:
    """Per-item scores from the ``samples_TASK_TIME.jsonl`` beside ``results_TIME.json``."""

    def __init__(self, file: Path, task: str) -> None:
        time = file.stem.removeprefix("results_")
        self._rows: list[dict[str, Any]] = []
        try:
            with (file.parent / f"samples_{task}_{time}.jsonl").open(encoding="utf-8") as lines:
                self._rows = [json.loads(line) for line in lines]
        except (OSError, ValueError):
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


def parse_results(found: Any, task: str, *, label: str, where: str, items: _Samples | None = None) -> list[Score]:
    """Every metric of ``task`` in a parsed results file, in the file's order."""
    try:
        metrics: Mapping[str, Any] = found["results"][task]
        names = [key for key in metrics if "," in key and _STDERR not in key and _is_number(metrics[key])]
        direction = (found.get("higher_is_better") or {}).get(task) or {}
        counts = (found.get("n-samples") or {}).get(task) or {}
        config = (found.get("configs") or {}).get(task) or {}
        samples = int(config.get("repeats") or 1)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        given = found.get("results") if isinstance(found, Mapping) else None
        known = ", ".join(map(str, given)) if isinstance(given, Mapping) else "nothing"
        hint = f"It holds scores of: {known}. A tag has none of its own: name one of its tasks."
        raise RunError(f"holds no scores of task {task!r}", where=where, hint=hint) from error
    if not names:
        hint = "Look at the task's metric_list; with --predict_only there is none."
        raise RunError(f"holds no metric of task {task!r}", where=where, hint=hint)
    count = counts.get("effective", metrics.get("sample_len"))
    scores: list[Score] = []
    for key in names:
        metric, _, kind = key.partition(",")
        stderr = metrics.get(f"{metric}{_STDERR},{kind}")
        value = float(metrics[key])
        scores.append(
            Score(
                label,
                key,
                value,
                stderr=float(stderr) if _is_number(stderr) and math.isfinite(stderr) else None,
                n=None if count is None else int(count),
                k=samples if samples > 1 else None,
                higher_is_better=direction.get(metric) is not False,
                items=None if items is None else items.of(metric, kind, value),
                details={"file": where, "task": task, "dataset": config.get("dataset_path")},
            )
        )
    return scores


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
