"""Table 3 and Figure 4: sparsity by kind of tensor and by depth in a 70B model of 723 tensors.

The paper prints what its simulation gave, not what was put in. ``simulated`` feeds each kind its printed mean, spread
along the depth as far as its printed deviation allows, and measures what comes out: the structure that was put in.
``control`` feeds every tensor the same share of zeros at its real size: the structure that L0 makes by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlmerge.geometry.vector import l0_share
from rlmerge_lab.scaling import article
from rlmerge_lab.scaling.expectation import l0_at_quantile
from rlmerge_lab.scaling.generator import Floats, active_entries, rng, task_vector
from rlmerge_lab.scaling.law import through
from rlmerge_lab.scaling.shapes import KINDS, LLAMA_70B, Tensor

STUDY = 4
ENTRIES = 32_768
DEPTH_KINDS = ("attention", "mlp")


@dataclass(frozen=True, slots=True)
class KindRow:
    """One kind of tensor: how many the real shapes hold, their share of parameters, and L0 three ways (mean, std)."""

    kind: str
    count: int
    parameter_share: float
    printed: tuple[float, float]
    simulated: tuple[float, float]
    control: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Trend:
    """Rise of L0 from the first layer to the last by least squares over layers, with its 95 % interval."""

    kind: str
    rise: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class AnatomyStudy:
    """``mean``, ``std``: over all 723 tensors from the printed rows; ``parameter_mean`` weighs by entries instead.

    ``by_layer[kind]`` is the simulated mean L0 of each layer, ``control_by_layer`` the same for equal zeros.
    """

    seed: int
    model: str
    fed: float
    rows: tuple[KindRow, ...]
    mean: float
    std: float
    parameter_mean: float
    count: int
    trends: tuple[Trend, ...]
    control_trends: tuple[Trend, ...]
    by_layer: dict[str, tuple[float, ...]]
    control_by_layer: dict[str, tuple[float, ...]]

    def row(self, kind: str) -> KindRow:
        return next(row for row in self.rows if row.kind == kind)


def run(seed: int = 0, entries: int = ENTRIES) -> AnatomyStudy:
    """Weigh the printed table over real shapes, and simulate all 723 tensors, ``entries`` entries each."""
    tensors = list(LLAMA_70B.tensors())
    fed = through(*article.CALIBRATION).at(70)
    printed = {row.kind: row for row in article.TABLE_3}
    simulated = np.array([_simulate(seed, i, t, printed[t.kind], entries) for i, t in enumerate(tensors)])
    sizes = np.array([t.numel for t in tensors], dtype=np.float64)
    control = l0_at_quantile(fed, sizes, rng(seed, STUDY, 1).random(len(tensors)))
    kinds = np.array([t.kind for t in tensors])
    rows = tuple(
        KindRow(
            kind=kind,
            count=int((kinds == kind).sum()),
            parameter_share=float(sizes[kinds == kind].sum() / sizes.sum()),
            printed=(printed[kind].mean, printed[kind].std),
            simulated=_mean_std(simulated[kinds == kind]),
            control=_mean_std(control[kinds == kind]),
        )
        for kind in KINDS
    )
    mean, std = pooled([row.printed for row in rows], [row.count for row in rows])
    layers = {k: _by_layer(tensors, simulated, k) for k in DEPTH_KINDS}
    control_layers = {k: _by_layer(tensors, control, k) for k in DEPTH_KINDS}
    return AnatomyStudy(
        seed=seed,
        model=LLAMA_70B.name,
        fed=fed,
        rows=rows,
        mean=mean,
        std=std,
        parameter_mean=sum(row.parameter_share * row.printed[0] for row in rows),
        count=len(tensors),
        trends=tuple(trend(k, layers[k]) for k in DEPTH_KINDS),
        control_trends=tuple(trend(k, control_layers[k]) for k in DEPTH_KINDS),
        by_layer=layers,
        control_by_layer=control_layers,
    )


def pooled(groups: list[tuple[float, float]], counts: list[int]) -> tuple[float, float]:
    """Mean and population standard deviation of all members, from (mean, std) and size of each group."""
    weights = np.array(counts, dtype=np.float64) / sum(counts)
    means, stds = np.array(groups).T
    mean = float(weights @ means)
    return mean, float(np.sqrt(weights @ (stds**2 + (means - mean) ** 2)))


def trend(kind: str, values: tuple[float, ...]) -> Trend:
    """Least-squares rise over all layers of one value a layer; the interval takes residuals as independent."""
    n = len(values)
    depth = np.arange(n) - (n - 1) / 2
    y = np.array(values)
    slope = float(depth @ y / (depth @ depth))
    residual = y - y.mean() - slope * depth
    error = float(np.sqrt(residual @ residual / (n - 2) / (depth @ depth)))
    return Trend(kind, slope * (n - 1), (slope - 1.96 * error) * (n - 1), (slope + 1.96 * error) * (n - 1))


def _simulate(seed: int, index: int, tensor: Tensor, printed: article.ModuleRow, entries: int) -> float:
    generator = rng(seed, STUDY, 0, index)
    if tensor.kind in DEPTH_KINDS and tensor.layer is not None:
        # A uniform ramp of width sqrt(12) std has the printed standard deviation.
        offset = np.sqrt(12) * printed.std * (tensor.layer / (LLAMA_70B.layers - 1) - 0.5)
    else:
        offset = printed.std * generator.standard_normal()
    zeros = float(np.clip(printed.mean + offset, 0.0, 1.0 - 1.0 / entries))
    return l0_share(task_vector(generator, entries, max(active_entries(entries, zeros), 1)))


def _by_layer(tensors: list[Tensor], values: Floats, kind: str) -> tuple[float, ...]:
    layers = [[v for t, v in zip(tensors, values, strict=True) if t.kind == kind and t.layer == i] for i in _LAYERS]
    return tuple(float(np.mean(layer)) for layer in layers)


_LAYERS = range(LLAMA_70B.layers)


def _mean_std(values: Floats) -> tuple[float, float]:
    return float(values.mean()), float(values.std())
