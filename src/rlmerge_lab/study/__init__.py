"""How the laboratory's experts merge: every method on every set of experts, tuned alike, compared with controls."""

from .budget import StudyBudget, budget_of
from .run import run_study

__all__ = ["StudyBudget", "budget_of", "run_study"]
