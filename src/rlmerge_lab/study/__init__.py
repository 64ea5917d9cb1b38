"""How the laboratory's experts merge: every method on every set of experts, tuned alike, compared with controls."""

from rlmerge_lab.study.budget import StudyBudget, budget_of
from rlmerge_lab.study.run import run_study
from rlmerge_lab.study.seeds import SeedInterval, interval, paired

__all__ = ["SeedInterval", "StudyBudget", "budget_of", "interval", "paired", "run_study"]
