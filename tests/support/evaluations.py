"""Evaluations, small or large, for what renders them."""

from dataclasses import replace
from hashlib import sha256
from itertools import combinations
from math import inf
from pathlib import Path

from rlmerge.evaluate.evaluator import Score
from rlmerge.evaluate.health import Health, Histogram, Length, ModelHealth
from rlmerge.evaluate.landscape.loss import Barrier, Landscape, Picture, Sharpness
from rlmerge.evaluate.results import Cell, Comparison, Evaluation, Merge, ScoredModel, Survival, Task
from rlmerge.evaluate.statistics import Interval

TASKS = ("rev", "cnt", "shift")
SCORES = {
    "base": (0.252, 0.641, 0.379),
    "rl-rev": (0.435, 0.588, 0.360),
    "rl-cnt": (0.235, 0.888, 0.357),
    "rl-shift": (0.263, 0.627, 0.677),
    "average": (0.302, 0.733, 0.468),
    "task-arithmetic": (0.401, 0.865, 0.634),
    "ties": (0.231, 0.889, 0.655),
}
"""pass@1 by model: the base, an expert of each task in the order of TASKS, merges."""


def spread(value, half):
    return Interval(value, value - half, value + half)


def decided(interval):
    return "better" if interval.low > 0 else "worse" if interval.high < 0 else "undecided"


def evaluation(table=None, tasks=TASKS, experts=3, half=0.03, **sections):
    """The evaluation for a ``table`` like SCORES, every score ± ``half``; ``sections`` replace whole fields."""
    table = table or SCORES
    names = list(table)
    base, skilled, merged = names[0], names[1 : 1 + experts], names[1 + experts :]
    roles = ["base", *["expert"] * len(skilled), *["merge"] * len(merged)]
    own = {task: skilled[i % len(skilled)] if skilled else None for i, task in enumerate(tasks)}
    found = Evaluation(
        models=tuple(
            ScoredModel(name, Path("models") / name, role, digest(name), "cached")
            for name, role in zip(names, roles, strict=True)
        ),
        tasks=tuple(Task(task, "pass@1", True, 500, None, (own[task],) if own[task] else ()) for task in tasks),
        scores=tuple(
            Cell(name, Score(task, "pass@1", values[i], half / 1.96, 500), spread(values[i], half))
            for name, values in table.items()
            for i, task in enumerate(tasks)
        ),
        other_scores=(),
        merges=tuple(_merge(name, table, tasks, own, base, half) for name in merged),
        comparisons=tuple(
            comparison(a, b, task, mean, half)
            for a, b in [*combinations(merged, 2), *((name, base) for name in merged)]
            for task, mean in (
                *((task, table[a][i] - table[b][i]) for i, task in enumerate(tasks)),
                *([("mean", sum(table[a]) / len(tasks) - sum(table[b]) / len(tasks))] if len(tasks) > 1 else []),
            )
        ),
        health=None,
        landscape=None,
        warnings=(),
    )
    return replace(found, **sections)


def digest(name):
    return sha256(name.encode("utf-8", "backslashreplace")).hexdigest()


def comparison(a, b, task, difference, half):
    found = spread(difference, half)
    return Comparison(a, b, task, found, decided(found))


def _merge(name, table, tasks, own, base, half):
    rows = []
    for i, task in enumerate(tasks):
        if own[task] is None:
            continue
        start, best, value = table[base][i], table[own[task]][i], table[name][i]
        to_expert, to_base = spread(value - best, half), spread(value - start, half)
        rows.append(
            Survival(
                task=task,
                expert=own[task],
                base_value=start,
                expert_value=best,
                merged_value=value,
                retention=spread(value / best, half / best),
                degradation=spread(value / best - 1, half / best),
                gain_kept=spread((value - start) / (best - start), half / (best - start)) if best > start else None,
                difference_to_expert=to_expert,
                difference_to_base=to_base,
                verdict_to_expert=decided(to_expert),
                verdict_to_base=decided(to_base),
            )
        )
    kept = [row.gain_kept.value for row in rows if row.gain_kept]
    return Merge(
        model=name,
        mean=spread(sum(table[name]) / len(tasks), half / 2),
        worst=min(rows, key=lambda row: row.retention.value, default=None),
        gain_kept=spread(sum(kept) / len(kept), 0.07) if kept else None,
        retention=spread(sum(row.retention.value for row in rows) / len(rows), 0.07) if rows else None,
        per_task=tuple(rows),
    )


def unknown(found):
    """The same evaluation without any interval, ratio or mean."""
    blank = {"retention": None, "degradation": None, "gain_kept": None}
    merges = [
        replace(
            merge, mean=None, worst=None, gain_kept=None, retention=None,
            per_task=tuple(replace(row, **blank) for row in merge.per_task),
        )
        for merge in found.merges
    ]  # fmt: skip
    nan = float("nan")
    scores = [replace(cell, interval=Interval(cell.score.value, nan, nan)) for cell in found.scores]
    return replace(found, scores=tuple(scores), merges=tuple(merges))


def wide(models=6, tasks=12):
    """Base, half the models as experts, the others as merges, on many tasks."""
    names = ["base", *(f"expert-{i}" for i in range(models // 2)), *(f"merge-{i}" for i in range(models - models // 2))]
    table = {
        name: [round(0.2 + 0.05 * ((3 * m + 5 * t) % 11) + 0.01 * t, 3) for t in range(tasks)]
        for m, name in enumerate(names)
    }
    return evaluation(table, [f"task-{t:02}" for t in range(tasks)], experts=models // 2)


HOSTILE = '"><script>alert(1)</script>\x1b[31m\nτ' + "很长的名字" * 12


def hostile():
    """Names that are markup, colour codes, line breaks, or far too long, wherever a name can stand."""
    table = {
        HOSTILE + " base": (0.2, 0.3),
        HOSTILE + " expert": (0.5, 0.4),
        HOSTILE + " merge": (0.4, 0.2),
        HOSTILE + " other": (0.3, 0.3),
    }
    tasks = (HOSTILE + " task", "exact:/" + "deep/" * 60 + "file.jsonl:task")
    names = list(table)
    surroundings = landscape(center=names[1], direction=names[2], task=tasks[0])
    found = evaluation(
        table, tasks, experts=1, warnings=(HOSTILE,), health=health(names), landscape=surroundings
    )  # fmt: skip
    return replace(found, models=tuple(replace(model, notes=(HOSTILE,)) for model in found.models))


def health(names=tuple(SCORES)):
    """Lengths around 40 of at most 128 tokens; the last model repeats itself up to the cap, and its KL is infinite."""
    models = []
    for k, name in enumerate(names):
        last = k == len(names) - 1
        counts = [max(0, 40 - 12 * abs(i - 3 - k % 3)) for i in range(16)]
        counts[-1] += 60 if last else 2
        models.append(
            ModelHealth(
                name=name,
                length_cap_repetition=0.21 if last else 0.004,
                seq_rep_4=0.35 if last else 0.06,
                stop_rate=0.74 if last else 0.99,
                length=Length(44.2 + k, 18, 40, 71, 128),
                histogram=Histogram(tuple(range(0, 129, 8)), tuple(counts)),
                entropy=0.81 - 0.05 * k,
                kl_to={
                    other: inf if last and j == 0 else 0.05 * abs(j - k)
                    for j, other in enumerate(names[:4])
                    if other != name
                },
            )
        )
    return Health(200, 1, 128, 1.0, tuple(models))


def landscape(center="rl-rev", direction="rl-cnt", task="rev", flat=False):
    """A hill around α = 0.4, β = 0; only its ridge when ``flat``."""
    alphas = tuple(round(-0.5 + 0.25 * i, 2) for i in range(9))
    betas = (0.0,) if flat else tuple(round(-1 + 0.25 * i, 2) for i in range(9))
    score = tuple(tuple(0.45 / (1 + (a - 0.4) ** 2 + b * b) for b in betas) for a in alphas)
    loss = tuple(tuple(2.2 - 2 * value for value in row) for row in score)
    steps = tuple(i / 10 for i in range(11))
    path = tuple(1.2 + 0.3 * s + 1.6 * s * (1 - s) for s in steps)
    return Landscape(
        (Picture(task, center, direction, alphas, betas, score, loss),),
        (Barrier(center, direction, task, steps, path, 0.4),),
        (
            Sharpness(center, task, 0.05, 0.031, 0.084, 1.0, 5),
            Sharpness(direction, task, 0.05, 0.018, 0.040, 1.0, 5),
        ),
    )


def full():
    """Every section filled."""
    return evaluation(
        health=health(), landscape=landscape(), warnings=("rev: no item scores; intervals are from standard errors",)
    )
