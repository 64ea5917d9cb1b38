"""Results of an evaluation as plain data, small or large, for what renders them."""

from hashlib import sha256
from itertools import combinations

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
    return {"value": value, "low": value - half, "high": value + half}


def decided(interval):
    return "better" if interval["low"] > 0 else "worse" if interval["high"] < 0 else "undecided"


def evaluation(table=None, tasks=TASKS, experts=3, half=0.03, **sections):
    """The result for a ``table`` like SCORES, every score ± ``half``; ``sections`` replace whole keys."""
    table = table or SCORES
    names = list(table)
    base, skilled, merged = names[0], names[1 : 1 + experts], names[1 + experts :]
    roles = ["base", *["expert"] * len(skilled), *["merge"] * len(merged)]
    own = {task: skilled[i % len(skilled)] if skilled else None for i, task in enumerate(tasks)}
    result = {
        "schema": "rlmerge.eval/1",
        "rlmerge": "0.1.0",
        "models": [
            {
                "name": name,
                "path_name": name,
                "role": role,
                "digest": sha256(name.encode("utf-8", "backslashreplace")).hexdigest(),
                "scored": "cached",
                "notes": [],
            }
            for name, role in zip(names, roles, strict=True)
        ],
        "tasks": [
            {
                "task": task,
                "metric": "pass@1",
                "higher_is_better": True,
                "n": 500,
                "k": None,
                "experts": [own[task]] if own[task] else [],
            }
            for task in tasks
        ],
        "scores": [
            {"model": name, "task": task, "metric": "pass@1", "stderr": half / 1.96, "n": 500, "k": None}
            | spread(values[i], half)
            for name, values in table.items()
            for i, task in enumerate(tasks)
        ],
        "other_scores": [],
        "merges": [_merge(name, table, tasks, own, base, half) for name in merged],
        "comparisons": [
            _comparison(a, b, task, mean, half)
            for a, b in [*combinations(merged, 2), *((name, base) for name in merged)]
            for task, mean in (
                *((task, table[a][i] - table[b][i]) for i, task in enumerate(tasks)),
                *([("mean", sum(table[a]) / len(tasks) - sum(table[b]) / len(tasks))] if len(tasks) > 1 else []),
            )
        ],
        "health": None,
        "landscape": None,
        "warnings": [],
    }
    return result | sections


def _comparison(a, b, task, difference, half):
    found = spread(difference, half)
    return {"a": a, "b": b, "task": task, "difference": found, "verdict": decided(found)}


def _merge(name, table, tasks, own, base, half):
    rows = []
    for i, task in enumerate(tasks):
        if own[task] is None:
            continue
        start, best, found = table[base][i], table[own[task]][i], table[name][i]
        to_expert, to_base = spread(found - best, half), spread(found - start, half)
        rows.append(
            {
                "task": task,
                "expert": own[task],
                "base_value": start,
                "expert_value": best,
                "merged_value": found,
                "retention": spread(found / best, half / best),
                "degradation": spread(found / best - 1, half / best),
                "gain_kept": spread((found - start) / (best - start), half / (best - start)) if best > start else None,
                "difference_to_expert": to_expert,
                "difference_to_base": to_base,
                "verdict_to_expert": decided(to_expert),
                "verdict_to_base": decided(to_base),
            }
        )
    worst = min(rows, key=lambda row: row["retention"]["value"], default=None)
    kept = [row["gain_kept"]["value"] for row in rows if row["gain_kept"]]
    return {
        "model": name,
        "mean": spread(sum(table[name]) / len(tasks), half / 2),
        "worst": worst and {key: worst[key] for key in ("task", "expert")} | {"retention": worst["retention"]["value"]},
        "gain_kept": spread(sum(kept) / len(kept), 0.07) if kept else None,
        "retention": spread(sum(row["retention"]["value"] for row in rows) / len(rows), 0.07) if rows else None,
        "per_task": rows,
    }


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
    result = evaluation(table, tasks, experts=1, warnings=[HOSTILE], health=health(list(table)))
    for model in result["models"]:
        model["notes"] = [HOSTILE]
    names = list(table)
    result["landscape"] = landscape(center=names[1], direction=names[2], task=tasks[0])
    return result


def health(names=tuple(SCORES)):
    """Lengths around 40 of at most 128 tokens; the last model repeats itself up to the cap."""
    models = []
    for k, name in enumerate(names):
        last = k == len(names) - 1
        counts = [max(0, 40 - 12 * abs(i - 3 - k % 3)) for i in range(16)]
        counts[-1] += 60 if last else 2
        models.append(
            {
                "name": name,
                "length_cap_repetition": 0.21 if last else 0.004,
                "seq_rep_4": 0.35 if last else 0.06,
                "stop_rate": 0.74 if last else 0.99,
                "length": {"mean": 44.2 + k, "p10": 18, "p50": 40, "p90": 71, "max": 128},
                "histogram": {"edges": list(range(0, 129, 8)), "counts": counts},
                "entropy": 0.81 - 0.05 * k,
                "kl_to": {other: 0.05 * abs(j - k) for j, other in enumerate(names[:4]) if other != name},
            }
        )
    models[-1]["kl_to"][names[0]] = None  # infinite
    return {"prompts": 200, "samples": 1, "max_new_tokens": 128, "temperature": 1.0, "models": models}


def landscape(center="rl-rev", direction="rl-cnt", task="rev", flat=False):
    """A hill around α = 0.4, β = 0; only its ridge when ``flat``."""
    alphas = [round(-0.5 + 0.25 * i, 2) for i in range(9)]
    betas = [0.0] if flat else [round(-1 + 0.25 * i, 2) for i in range(9)]
    score = [[0.45 / (1 + (a - 0.4) ** 2 + b * b) for b in betas] for a in alphas]
    steps = [i / 10 for i in range(11)]
    path = [1.2 + 0.3 * s + 1.6 * s * (1 - s) for s in steps]
    return {
        "pictures": [
            {
                "task": task, "center": center, "direction": direction, "alphas": alphas, "betas": betas,
                "score": score, "loss": [[2.2 - 2 * value for value in row] for row in score],
            }
        ],
        "barriers": [{"a": center, "b": direction, "task": task, "alphas": steps, "loss": path, "barrier": 0.4}],
        "sharpness": [
            {"model": center, "task": task, "radius": 0.05, "mean": 0.031, "max": 0.084},
            {"model": direction, "task": task, "radius": 0.05, "mean": 0.018, "max": 0.040},
        ],
    }  # fmt: skip


def full():
    """Every section filled."""
    return evaluation(
        health=health(), landscape=landscape(), warnings=["rev: no item scores; intervals are from standard errors"]
    )
