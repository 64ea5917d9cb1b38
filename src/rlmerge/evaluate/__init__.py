"""Scoring models fairly: base, experts and merges by one harness, with what was kept and how sure that is.

``evaluate`` and the names beside it load what they need on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlmerge.evaluate.evaluator import Evaluator, Score
    from rlmerge.evaluate.results import Evaluation
    from rlmerge.evaluate.run import evaluate
    from rlmerge.evaluate.task_specs import Job, Options

_HOMES = {
    "evaluate": "rlmerge.evaluate.run",
    "Evaluation": "rlmerge.evaluate.results",
    "Evaluator": "rlmerge.evaluate.evaluator",
    "Job": "rlmerge.evaluate.task_specs",
    "Options": "rlmerge.evaluate.task_specs",
    "Score": "rlmerge.evaluate.evaluator",
}

__all__ = ["Evaluation", "Evaluator", "Job", "Options", "Score", "evaluate"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'rlmerge.evaluate' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
