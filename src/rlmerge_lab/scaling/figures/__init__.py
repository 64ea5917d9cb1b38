"""The paper's six figures, redrawn from our results with its numbers beside them."""

from rlmerge_lab.scaling.figures import agents, anatomy, law, memory, merge, sparsity

__all__ = ["agents", "anatomy", "law", "memory", "merge", "sparsity"]
