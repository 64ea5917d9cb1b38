"""Runs plans: scan, merge and seal, in bounded memory."""

from rlmerge.progress import Progress, Quiet

from .merge import run
from .result import ExpertSurvival, MergeResult

__all__ = ["ExpertSurvival", "MergeResult", "Progress", "Quiet", "run"]
