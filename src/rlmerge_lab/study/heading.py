"""What stands before the numbers of a study: what was run, on what, by which versions, at which cost."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import numpy as np

from rlmerge import __version__
from rlmerge_lab.study.budget import StudyBudget
from rlmerge_lab.study.lineup import Lineup
from rlmerge_lab.study.source import Source
from rlmerge_lab.study.trials import HIGH, LOW

SCHEMA = "rlmerge.lab.study/1"
"""Version of the result: the number grows when a field changes its meaning or goes away; new fields do not count."""


def heading(source: Source, budget: StudyBudget, lineup: Lineup, seconds: float, command: str) -> dict[str, Any]:
    """The fields of study.json beside its tables; ``seconds`` of processor time went into the study itself."""
    lab = source.lab
    # Older manifests hold the time by the clock only, which other work beside the training makes longer.
    manifests = list(source.manifests.values())
    training = sum(float(one.get("cpu_seconds", one.get("seconds", 0.0))) for one in manifests)
    return {
        "schema": SCHEMA,
        "profile": lab.profile.name,
        "seeds": list(lab.seeds),
        "tasks": list(lab.tasks),
        "arms": list(lab.arms),
        "methods": list(lineup.present),
        "method_details": {label: contender.to_dict() for label, contender in lineup.present.items()},
        "skipped": lineup.skipped(),
        "trials": budget.trials,
        "scales": [LOW, HIGH],
        "budget": budget.to_dict(),
        "versions": {**_trained_with(source), "rlmerge": __version__, **_here()},
        "command": command,
        "cpu_hours": (training + seconds) / 3600,
        "cpu_seconds": {"training": training, "study": seconds},
        "cpu_at_most": not all("cpu_seconds" in one for one in manifests),
        "parameters": source.parameters,
    }


def _here() -> dict[str, str]:
    return {"python": platform.python_version(), "numpy": np.__version__}


def _trained_with(source: Source) -> Mapping[str, str]:
    """The versions the experts' manifests name; those of the last one where they differ."""
    return {name: v for manifest in source.manifests.values() for name, v in manifest.get("versions", {}).items()}
