"""The tables of methods on RL experts: ranked, beside what they do off task, by layer, and beside distillation."""

from __future__ import annotations

from typing import Any

from .cells import TUNABLE, Study
from .figure import over_seeds
from .rotations import against
from .students import FROM_ARITHMETIC, FROM_BASE, FROM_OWN

ARM = "rl"


def ranking(study: Study) -> list[dict[str, Any]]:
    """Methods as tuned on dev, best first: gain kept, the same minus task arithmetic's, off task, pairs, layer 0."""
    rows = [_ranked(study, method) for method in study.methods if study.merge(ARM, method, "tuned")]
    return sorted(rows, key=lambda row: -row["gain"]["value"])


def _ranked(study: Study, method: str) -> dict[str, Any]:
    def tuned(field: str, *, pairs: bool = False) -> Any:
        return over_seeds(study.merge(ARM, method, "tuned", field, pairs=pairs))

    return {
        "method": method,
        "looks_at": study.looks_at(method),
        "gain": tuned("gain_kept"),
        "against": None if method == TUNABLE else against(study, method, TUNABLE).to_dict(),
        "score": tuned("score"),
        "off_task": tuned("off_task"),
        "off_retention": tuned("off_retention"),
        "pairs": tuned("gain_kept", pairs=True),
        "pairs_off_task": tuned("off_task", pairs=True),
        "layer_0": over_seeds(study.part(ARM, method, "layer", 0)),
        "rest": over_seeds(study.part(ARM, method, "rest", 0)),
    }


def layers(study: Study) -> list[dict[str, Any]]:
    """Gain kept by tuned task arithmetic with a part of its weights replaced by those of each method's tuned merge."""
    return [
        {
            "method": method,
            "layers": [
                {
                    "layer": number,
                    "gain_kept": over_seeds(study.part(ARM, method, "layer", number)),
                    "off_task": over_seeds(study.part(ARM, method, "layer", number, "off_task")),
                }
                for number in found
            ],
            "outside": over_seeds(study.part(ARM, method, "outside")),
            "rest": over_seeds(study.part(ARM, method, "rest", 0)),
            "whole": over_seeds(study.merge(ARM, method, "tuned")),
            "reference": over_seeds(study.merge(ARM, TUNABLE, "tuned")),
        }
        for method in study.methods
        if (found := study.layers(ARM, method))
    ]


def students(study: Study) -> list[dict[str, Any]]:
    """Students by where they started: test, off task, and dev by generated tokens, look by look."""
    rows: list[dict[str, Any]] = []
    for arm in (FROM_BASE, FROM_ARITHMETIC, FROM_OWN):
        curves = study.student(arm)
        looks = min((len(curve) for curve in curves.values()), default=0)
        points = [
            {
                "tokens": sum(curve[look][0] for curve in curves.values()) / len(curves),
                "score": over_seeds({(seed, ""): curve[look][1] for seed, curve in curves.items()}),
            }
            for look in range(looks)
        ]
        score = over_seeds(study.student_score(arm))
        if points or score:
            off = over_seeds(study.student_off_task(arm))
            rows.append({"arm": arm, "score": score, "off_task": off, "points": points})
    return rows
