"""How the laboratory's experts merge: every method on every set of experts, tuned alike, compared with controls."""

from .budget import StudyBudget, budget_of
from .run import run_study
from .seeds import SeedInterval, interval, paired

__all__ = ["SeedInterval", "StudyBudget", "budget_of", "interval", "paired", "run_study"]
