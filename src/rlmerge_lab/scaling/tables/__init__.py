"""Each study's result as tables: the paper's own, with our columns beside its."""

from rlmerge_lab.scaling.tables import agents, anatomy, law, memory, merge, sparsity

__all__ = ["agents", "anatomy", "law", "memory", "merge", "sparsity"]
