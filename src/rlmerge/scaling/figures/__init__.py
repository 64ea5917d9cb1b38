"""The paper's six figures, redrawn from our results with its numbers beside them."""

from . import agents, anatomy, law, memory, merge, sparsity

__all__ = ["agents", "anatomy", "law", "memory", "merge", "sparsity"]
