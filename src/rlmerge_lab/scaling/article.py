"""What computations are held against: the numbers printed in "Does Sparsity Persist?", and published measurements."""

from __future__ import annotations

from typing import NamedTuple

PAPER = "Does Sparsity Persist? Scaling Laws for RL-Induced Task Vectors and Reinforced Agent Merging at 70B+ Scale"


class SparsityRow(NamedTuple):
    """Table 1: metrics of simulated task vectors, mean and standard deviation of five trials."""

    billions: float
    l0: float
    l0_std: float
    gini: float
    gini_std: float
    kurtosis: float
    top1: float


TABLE_1 = (
    SparsityRow(1, 0.9139, 0.0224, 0.9268, 0.0038, 792.6, 0.3998),
    SparsityRow(3, 0.9609, 0.0099, 0.9584, 0.0021, 1876.7, 0.5143),
    SparsityRow(7, 0.9630, 0.0064, 0.9685, 0.0026, 1300.7, 0.5663),
    SparsityRow(8, 0.9828, 0.0067, 0.9714, 0.0025, 6688.9, 0.5922),
    SparsityRow(14, 0.9778, 0.0037, 0.9786, 0.0025, 2340.5, 0.6548),
    SparsityRow(32, 0.9895, 0.0025, 0.9852, 0.0016, 6965.6, 0.7399),
    SparsityRow(70, 0.9944, 0.0013, 0.9909, 0.0029, 13020.8, 0.8540),
    SparsityRow(100, 0.9947, 0.0029, 0.9895, 0.0026, 30586.5, 0.8220),
    SparsityRow(200, 0.9954, 0.0025, 0.9935, 0.0020, 16120.6, 0.9150),
    SparsityRow(405, 0.9970, 0.0012, 0.9940, 0.0020, 39018.9, 0.9272),
)
TRIALS = 5

FIT_A, FIT_B, FIT_R2 = 0.085, 0.587, 0.965
"""Section 3.1: the fitted law s(N) = 1 - a N^-b and its coefficient of determination."""

LAW_VALUES = {70.0: 0.993, 100.0: 0.994, 405.0: 0.998}
"""Section 3.1: the fitted law at 70B, 100B and 405B."""

CALIBRATION = ((3.0, 0.85), (7.0, 0.90))
"""Section 2.6: the two measured points, (billions of parameters, sparsity), the simulation is calibrated to."""

LOG_MEAN, LOG_STD = -3.0, 1.5
"""Section 2.6: log-normal magnitudes of the non-zero entries."""

SHARED = 0.2
"""Section 2.6: share of an agent's active positions that all agents have in common."""

AGENTS = 3

MERGE_LEVELS = (0.80, 0.90, 0.95)
TABLE_2 = {
    "Simple Avg": ((1.0000, 0.5753), (1.0000, 0.5725), (1.0000, 0.5778)),
    "TIES": ((0.9903, 0.5695), (0.9916, 0.5672), (0.9919, 0.5724)),
    "DARE": ((0.5082, 0.2933), (0.2669, 0.1476), (0.2087, 0.1099)),
    "RAM": ((0.9135, 0.5315), (1.0000, 0.5725), (1.0000, 0.5778)),
}
"""Table 2: (cosine to oracle, mean fidelity) at 80, 90 and 95 % sparsity."""

PERCENTILE, RESCALE = 90.0, 1.5
"""Equations 4 and 5: percentile of the active mask, and lambda."""


class ModuleRow(NamedTuple):
    """Table 3: L0 by kind of tensor in a simulated 70B model."""

    kind: str
    mean: float
    std: float
    tensors: int


TABLE_3 = (
    ModuleRow("attention", 0.9688, 0.0105, 320),
    ModuleRow("mlp", 0.9454, 0.0154, 240),
    ModuleRow("norm", 0.8798, 0.0345, 161),
    ModuleRow("embedding", 0.9741, 0.0, 1),
    ModuleRow("head", 0.9182, 0.0, 1),
)
OVERALL_MEAN, OVERALL_STD, OVERALL_COUNT = 0.9412, 0.0397, 723


class MemoryRow(NamedTuple):
    """Table 4: gigabytes (10^9 bytes) to merge three agents."""

    billions: float
    fp16: float
    naive: float
    stream: float
    reduction: int


TABLE_4 = (
    MemoryRow(3, 6.0, 24.0, 2.6, 9),
    MemoryRow(7, 14.0, 56.0, 3.0, 19),
    MemoryRow(13, 26.0, 104.0, 3.6, 29),
    MemoryRow(70, 140.0, 560.0, 6.0, 93),
    MemoryRow(405, 810.0, 3240.0, 18.0, 180),
)


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


PUBLISHED_SOURCE = "arXiv 2505.11711 and 2511.08567, bfloat16 checkpoints, second-hand"
PUBLISHED = (
    Measurement("1.5B", 1.5, 1.5, 0.36, 0.54),
    Measurement("4B", 4.0, 4.0, 0.79, 0.79),
    Measurement("7–8B", 7.0, 8.0, 0.62, 0.80),
    Measurement("14B", 14.0, 14.0, 0.68, 0.68),
    Measurement("30B MoE", 30.0, 30.0, 0.92, 0.92),
)
"""Not of the paper: what others measured on real checkpoints, to be read beside its law."""
