"""From a recipe to a merged model: jobs, statistics, backends, sinks, in bounded memory."""

from .account import ExpertSurvival, MergeResult
from .job import Job
from .make import make_plan
from .plan import Plan
from .run import merge_shard, run
from .stages import plan_stages, run_stages

__all__ = [
    "ExpertSurvival",
    "Job",
    "MergeResult",
    "Plan",
    "make_plan",
    "merge_shard",
    "plan_stages",
    "run",
    "run_stages",
]
