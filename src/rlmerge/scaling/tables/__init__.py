"""Each study's result as tables: the paper's own, with our columns beside its."""

from . import agents, anatomy, law, memory, merge, sparsity

__all__ = ["agents", "anatomy", "law", "memory", "merge", "sparsity"]
