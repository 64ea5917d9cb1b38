"""Whose claims are judged, what counts as no difference, and limits that many claims share."""

from __future__ import annotations

from rlmerge_lab.claims.figure import Margin

ENOUGH = "“Enough is as good as a feast” (arXiv 2607.22039)"
CURSE = "“Sparsity Curse” (arXiv 2606.18521)"
RAM = "RAM (arXiv 2601.13572)"
SCF = "SCF-RKL (arXiv 2602.11717)"
SCALE = "“Does Sparsity Persist?”"
CANDIDATE = "a candidate explanation of the contradiction, no source's own claim"

GAIN = Margin(0.02, "share")
"""Of an expert's gain over the base."""
RETENTION = Margin(0.01, "share")
SCORE = Margin(0.005, "share")
MATCHED_SCORE = Margin(0.02, "share")
"""Of pass@1, for experts that count as equally accurate."""
UNCHANGED = Margin(0.02, "share")
CONFLICT = Margin(0.02, "share")
REPETITION = Margin(0.01, "share")
COSINE = Margin(0.1)
COSINE_GAP = Margin(0.02)
RELATIVE_NORM = 0.1
"""Of the mean of the side compared with."""

SIZE = "One small architecture and short tasks: what changes with size or with long reasoning is not seen here."
DTYPE = "Weights are stored in bfloat16; other types and optimisers change the share of unchanged weights."
RECONSTRUCTED = (
    "The method is our reconstruction of an outline, so this does not judge the authors' code, and a small model on "
    "short tasks does not judge their benchmarks."
)

UNTESTED = (
    "that RL updates avoid the base's principal directions",
    "that sparsity grows with model size",
    "that the attention updates are sparser than those of the feed-forward layers",
    "that merging saves training cost",
)
"""What the sources also claim and this study holds no figure for."""
