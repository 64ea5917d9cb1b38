"""What a model kept of tasks that it was not made for: tasks of its base that no expert of it was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .scoring import Pass


def off_task(base: Mapping[str, float], scores: Mapping[str, float]) -> dict[str, Any]:
    """``off``: pass@1 by task; ``off_task``: its mean change from ``base``; ``off_retention``: mean of model/base.

    Over the tasks of ``base``, of which ``scores`` may hold more; nothing where there are none. Retention is None where
    the base solves nothing.
    """
    if not base:
        return {}
    off: Pass = {task: scores[task] for task in base}
    shares = [off[task] / value for task, value in base.items() if value > 0]
    return {
        "off": off,
        "off_task": float(np.mean([off[task] - value for task, value in base.items()])),
        "off_retention": float(np.mean(shares)) if shares else None,
    }
