"""The paper's statements as data, one file a study: each with how our result is judged against it."""

from rlmerge_lab.scaling.rules import agents, anatomy, law, memory, merge, sparsity

__all__ = ["agents", "anatomy", "law", "memory", "merge", "sparsity"]
