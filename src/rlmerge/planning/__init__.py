"""Plans: what a merge will do and cost, from headers alone."""

from .make import make_plan
from .plan import Plan, TensorPlan

__all__ = ["Plan", "TensorPlan", "make_plan"]
