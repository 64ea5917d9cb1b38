"""Runs plans: scan, merge and seal, in bounded memory."""

from .merge import run
from .result import ExpertSurvival, MergeResult
from .stream import Progress, Quiet

__all__ = ["ExpertSurvival", "MergeResult", "Progress", "Quiet", "run"]
