"""Task vectors to test methods on: one worked by hand, and random ones with ties, zeros and shared changes."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

BASE = np.arange(16.0).reshape(4, 4) - 8
"""Sixteen different weights."""

TAU = np.zeros((3, 4, 4))
"""Three task vectors of 16 entries with 5, 6 and 2 changes. Changed coordinates, as (row, column): expert values."""
TAU[:, 0, 0] = 4, -2, 0
TAU[:, 0, 2] = 0, 5, 0
TAU[:, 1, 0] = 3, 1, 0
TAU[:, 1, 1] = 0, 0, 6
TAU[:, 1, 3] = -1, -2, 0
TAU[:, 2, 1] = 2, 4, -3
TAU[:, 3, 3] = 1, -1, 0


def at(**places: float) -> np.ndarray:
    """A 4×4 matrix of zeros with the given entries: ``at(r0c2=5)`` has 5 in row 0, column 2."""
    matrix = np.zeros((4, 4))
    for place, value in places.items():
        matrix[int(place[1]), int(place[3])] = value
    return matrix


def experts(base: np.ndarray, tau: np.ndarray) -> list[np.ndarray]:
    """Weights whose task vectors are ``tau``."""
    return [base + delta for delta in tau]


def whole_deltas(count: int | None = None, shape: tuple[int, ...] = (4, 4), limit: int = 3) -> st.SearchStrategy:
    """Task vectors [K, *shape] of small whole numbers: many ties and zeros, and sums without rounding."""
    amounts = st.integers(1, 4) if count is None else st.just(count)
    return amounts.flatmap(lambda k: arrays(np.int64, (k, *shape), elements=st.integers(-limit, limit))).map(
        lambda x: x.astype(np.float64)
    )


def fine_tunes(
    seed: int, count: int, shape: tuple[int, ...], share: float = 0.3
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Float32 weights that are bfloat16 numbers, and experts that moved ``share`` of them by one or two steps."""
    rng = np.random.default_rng(seed)
    word = (rng.standard_normal(shape, np.float32) * 0.05).view(np.uint32) & np.uint32(0xFFFF0000)
    found = []
    for _ in range(count):
        steps = rng.choice(np.array([-2, -1, 1, 2]), shape) * (rng.random(shape) < share)
        moved = (word.astype(np.int64) + (steps << 16)).astype(np.uint32)
        found.append(moved.view(np.float32))
    return word.view(np.float32), found
