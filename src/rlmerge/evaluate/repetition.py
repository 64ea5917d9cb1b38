"""Whether outputs go round in circles."""

from __future__ import annotations

from collections.abc import Sequence

TIMES = 8
"""How often an n-gram must stand at the end of an output that reached the length limit for it to count as a loop."""


def loops(tokens: Sequence[int], times: int = TIMES) -> bool:
    """Whether ``tokens`` end with ``times`` copies of one n-gram, of any length n ≥ 1, one after the other."""
    for n in range(1, len(tokens) // times + 1):
        tail = tokens[len(tokens) - n * times :]
        # What equals itself moved by n repeats its first n.
        if tail[n:] == tail[:-n]:
            return True
    return False


def repeated_share(tokens: Sequence[int], n: int = 4) -> float:
    """seq-rep-n: the share of n-grams that occurred before, 1 − distinct / all (Welleck et al., arXiv 1908.04319).

    0 for outputs of fewer than n tokens, which repeat nothing.
    """
    grams = [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
