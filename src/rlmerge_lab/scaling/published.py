"""Published sparsity of real RL checkpoints, to be read beside the simulated law."""

from __future__ import annotations

from typing import NamedTuple


class Measurement(NamedTuple):
    """Share of unchanged bfloat16 weights of real RL runs: lowest and highest reported, and their model sizes."""

    label: str
    billions_low: float
    billions_high: float
    low: float
    high: float

    @property
    def billions(self) -> float:
        """Geometric middle of the sizes."""
        return (self.billions_low * self.billions_high) ** 0.5

    @property
    def middle(self) -> float:
        return (self.low + self.high) / 2


SOURCE = "arXiv 2505.11711 and 2511.08567, bfloat16 checkpoints, second-hand"

MEASURED = (
    Measurement("1.5B", 1.5, 1.5, 0.36, 0.54),
    Measurement("4B", 4.0, 4.0, 0.79, 0.79),
    Measurement("7–8B", 7.0, 8.0, 0.62, 0.80),
    Measurement("14B", 14.0, 14.0, 0.68, 0.68),
    Measurement("30B MoE", 30.0, 30.0, 0.92, 0.92),
)
