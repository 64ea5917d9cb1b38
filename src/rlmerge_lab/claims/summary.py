"""The tables of a study's report: means over seeds with their intervals, as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .cells import EXACT, Cells, Study, finite
from .figure import Interval, Side, difference, over_seeds
from .ranking import layers, ranking, students
from .verdict import GAIN

RULES = ("default", "tuned", "matched")
PAIR_FIELDS = (
    "cosine", "cosine_null_sd", "jaccard", "jaccard_chance", "sign_conflict", "conflict_norm", "conflict_share",
)  # fmt: skip
HEALTH_FIELDS = ("length_cap_repetition", "seq_rep_4", "stop_rate", "entropy")


def summarize(study: Study) -> dict[str, Any]:
    """Every table; a cell is ``{"value", "low", "high", "n"}`` over seeds, or None where the study holds nothing."""
    return {
        "experts": [_expert(study, arm) for arm in study.arms],
        "methods": [_method(study, method) for method in study.methods],
        "ranking": ranking(study),
        "layers": layers(study),
        "students": students(study),
        "geometry": [_geometry(study, arm) for arm in study.arms],
        "scale": [_scale(study, arm) for arm in study.arms],
        "exact_output": _exact(study),
        "health": _health(study),
    }


def _expert(study: Study, arm: str) -> dict[str, Any]:
    own, bases = study.own(arm), study.base()
    return {
        "arm": arm,
        "base": over_seeds({key: bases[key] for key in own if key in bases}),
        "own": over_seeds(own),
        "others": over_seeds(study.others(arm)),
        "held": over_seeds(study.expert(arm, "off_task")),
        **{field: over_seeds(study.expert(arm, field)) for field in ("norm", "unchanged", "steps")},
    }


def _method(study: Study, method: str) -> dict[str, Any]:
    """One method in every arm and under every rule, and RL minus SFT."""
    arms = {
        arm: {
            **{rule: over_seeds(study.merge(arm, method, rule)) for rule in RULES},
            "pairs": over_seeds(study.merge(arm, method, "default", pairs=True)),
            "off": {rule: over_seeds(study.merge(arm, method, rule, "off_task")) for rule in RULES},
            **{
                field: over_seeds(study.merge(arm, method, "default", field))
                for field in ("norm", "survival", "erased", "retention", "score")
            },
        }
        for arm in study.arms
    }
    gaps = {
        rule: difference(
            f"{method} {rule}", study.merge("rl", method, rule), study.merge("sft", method, rule), Side.ABOVE, GAIN
        ).to_dict()
        for rule in RULES
    }
    return {"method": method, "arms": arms, "rl_minus_sft": gaps}


def _geometry(study: Study, arm: str) -> dict[str, Any]:
    return {"arm": arm, **{field: over_seeds(study.pair(arm, field)) for field in PAIR_FIELDS}}


def _scale(study: Study, arm: str) -> dict[str, Any]:
    """Gain kept against the norm of the merged update: the sweep of task arithmetic by coefficient, over seeds."""
    rows = [row for row in study.rows.get("sweep") or () if row["arm"] == arm]
    lambdas = sorted({row["lambda"] for row in rows})

    def at(value: float, field: str) -> Interval | None:
        return over_seeds(_swept(rows, value, field))

    fields = ("norm", "gain_kept", "off_task")
    points = [{"lambda": value, **{field: at(value, field) for field in fields}} for value in lambdas]
    return {"arm": arm, "points": points}


def _swept(rows: Iterable[Mapping[str, Any]], value: float, field: str) -> Cells:
    found = ((row["seed"], finite(row.get(field))) for row in rows if row["lambda"] == value)
    return {(seed, ""): number for seed, number in found if number is not None}


def _exact(study: Study) -> list[dict[str, Any]]:
    """Merges stored in float32 beside the same ones in bfloat16."""
    found: list[dict[str, Any]] = []
    named = dict.fromkeys(
        (row["arm"], row["method"], row.get("of"))
        for row in study.rows.get("merges") or ()
        if row["rule"] == EXACT and row["set"] == "all"
    )
    for arm, method, rule in named:
        found.append(
            {
                "arm": arm,
                "method": method,
                "rule": rule,
                "float32": over_seeds(study.exact_output(arm, method, rule)),
                "bfloat16": over_seeds(study.merge(arm, method, rule)),
                "erased": over_seeds(study.merge(arm, method, rule, "erased")),
            }
        )
    return found


def _health(study: Study) -> list[dict[str, Any]]:
    """Each figure by arm and model; the experts of an arm together."""
    models = dict.fromkeys((row["arm"], *row["model"].partition(":")[::2]) for row in study.rows.get("health") or ())
    rows = dict.fromkeys((arm, kind, name if kind == "merge" else "") for arm, kind, name in models)
    found: list[dict[str, Any]] = []
    for arm, kind, name in rows:
        figures: dict[str, Interval | None] = {}
        for field in HEALTH_FIELDS:
            cells = study.health(arm, kind, field)
            figures[field] = over_seeds({k: v for k, v in cells.items() if kind != "merge" or k[1] == name})
        found.append({"arm": arm, "model": f"{kind} {name}".strip() if kind != "expert" else "experts", **figures})
    return found
