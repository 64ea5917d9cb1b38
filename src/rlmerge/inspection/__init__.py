"""What `rlmerge inspect` finds out, as data: figures, verdicts and what they rest on, and a recipe to start from."""

from rlmerge.inspection.results import (
    SCHEMA,
    Expert,
    Finding,
    Forecast,
    Group,
    Inspection,
    Model,
    Pair,
    Recommendation,
    Spectrum,
    TensorRow,
    TrendOf,
)

__all__ = [
    "SCHEMA",
    "Expert",
    "Finding",
    "Forecast",
    "Group",
    "Inspection",
    "Model",
    "Pair",
    "Recommendation",
    "Spectrum",
    "TensorRow",
    "TrendOf",
]
