"""The computations: one file a study, each with one function ``run(seed, …)`` that returns a frozen dataclass."""

from rlmerge_lab.scaling.studies import agents, anatomy, law, memory, merge, sparsity

__all__ = ["agents", "anatomy", "law", "memory", "merge", "sparsity"]
