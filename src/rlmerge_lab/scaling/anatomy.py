"""Table 3 and Figure 4: sparsity by kind of tensor and by depth in a 70B model of 723 tensors.

The paper prints what its simulation gave, not what was put in. ``simulated`` feeds each kind its printed mean, spread
along the depth as far as its printed deviation allows, and measures what comes out: the structure that was put in.
``control`` feeds every tensor the same share of zeros at its real size: the structure that L0 makes by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlmerge.geometry.vector import l0_share
from rlmerge.report.rows import Dots
from rlmerge_lab.report.charts import curve, dots, lines, spread
from rlmerge_lab.report.parts import Picture, Sheet

from . import article
from .architectures import KINDS, LLAMA_70B, Tensor
from .simulation import CALIBRATED, Floats, active_entries, l0_at_quantile, rng, task_vector
from .verdict import Claim, Verdict, holds, in_kind, percent, plus_minus, printed

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

    def __str__(self) -> str:
        """In points."""
        return f"{100 * self.rise:+.2f} ({100 * self.low:+.2f} to {100 * self.high:+.2f})"


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

    @property
    def gap(self) -> float:
        """Attention minus MLP in the printed table, as a fraction."""
        return self.row("attention").printed[0] - self.row("mlp").printed[0]


def run(seed: int = 0, entries: int = ENTRIES) -> AnatomyStudy:
    """Weigh the printed table over real shapes, and simulate all 723 tensors, ``entries`` entries each."""
    tensors = list(LLAMA_70B.tensors())
    fed = CALIBRATED.at(70)
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
    layers: list[list[float]] = [[] for _ in range(LLAMA_70B.layers)]
    for tensor, value in zip(tensors, values, strict=True):
        if tensor.kind == kind and tensor.layer is not None:
            layers[tensor.layer].append(value)
    return tuple(float(np.mean(layer)) for layer in layers)


def _mean_std(values: Floats) -> tuple[float, float]:
    return float(values.mean()), float(values.std())


def claims(study: AnatomyStudy) -> tuple[Claim, ...]:
    """Statements of section 3.4 and Table 3 about kinds of tensors and depth."""
    counts = tuple(study.row(row.kind).count for row in article.TABLE_3)
    attention, mlp, norm = (study.row(kind).simulated[0] for kind in ("attention", "mlp", "norm"))
    control = ", ".join(f"{kind} {study.row(kind).control[0]:.4f}" for kind in ("norm", "attention", "mlp"))
    return (
        Claim(
            "Tensors by kind in a 70B model", "Table 3", "320, 240, 161, 1, 1",
            ", ".join(map(str, counts)),
            holds(counts == tuple(row.tensors for row in article.TABLE_3)),
            f"Counted from the shapes of {study.model}: {study.count} tensors.",
        ),
        Claim(
            "Overall mean L0", "Table 3", f"{article.OVERALL_MEAN:.4f}", f"{study.mean:.4f}",
            printed(study.mean, article.OVERALL_MEAN, 4),
            "The printed rows weighted by our count of tensors. Weighted by parameters, which is what an update "
            f"consists of, they give {study.parameter_mean:.4f}.",
        ),
        Claim(
            "Overall standard deviation", "Table 3", f"{article.OVERALL_STD:.4f}", f"{study.std:.4f}",
            printed(study.std, article.OVERALL_STD, 4),
            "Within and between kinds, pooled.",
        ),
        Claim(
            "Attention is 2.4 (§3.4) or 2.5 (§1) points sparser than MLP", "§1, §3.4", "2.4, 2.5",
            f"{100 * study.gap:.2f}",
            holds(f"{100 * study.gap:.1f}" in ("2.4", "2.5")),
            "Neither follows from Table 3: 0.9688 − 0.9454.",
        ),
        Claim(
            "Attention is sparser than MLP, norms least", "§3.4", "0.969, 0.945, 0.880",
            f"{attention:.3f}, {mlp:.3f}, {norm:.3f}",
            in_kind(attention > mlp > norm),
            "Comes out because it is put in: each kind was fed its printed mean. Fed equal zeros at their real sizes, "
            f"kinds already differ by length alone ({control}): norms read least sparse for being short.",
        ),
        Claim(
            "Sparsity increases with depth", "§3.4, Fig. 4", "positive slope",
            f"points over 80 layers: {_rises(study.trends)}",
            in_kind(all(t.low > 0 for t in study.trends)),
            "No slope is printed. Ours is the ramp that the printed deviations allow, and a simulation returns the ramp"
            f" it is fed: with equal zeros in every layer the rise is {_rises(study.control_trends)}.",
        ),
        Claim(
            "The structure intensifies at larger scales", "abstract, §4", "stated", "one model size is simulated",
            Verdict.NOT_REPRODUCED,
            "The paper shows a single 70B model; there is nothing to compare it with.",
        ),
    )  # fmt: skip


def _rises(trends: Sequence[Trend]) -> str:
    return ", ".join(f"{t.kind} {t}" for t in trends)


def tables(study: AnatomyStudy) -> tuple[Sheet, ...]:
    """Table 3 over real shapes, with the two simulations beside it."""
    kinds = Sheet(
        f"Table 3. L0 by kind of tensor, shapes of {study.model}",
        ("kind", "tensors", "parameters", "L0 paper", "L0 of its means fed in", "L0 of equal zeros"),
        [
            *(
                (
                    row.kind,
                    str(row.count),
                    percent(row.parameter_share, 3),
                    *(plus_minus(*value) for value in (row.printed, row.simulated, row.control)),
                )
                for row in study.rows
            ),
            ("all tensors", str(study.count), percent(1.0, 0), plus_minus(study.mean, study.std), "", ""),
            ("all, by parameters", "", "", f"{study.parameter_mean:.4f}", "", ""),
        ],
        f"The last column feeds every tensor {percent(study.fed)} zeros at its real size. Rows of totals are computed "
        "from the paper's rows.",
        "table-3",
    )
    trends = Sheet(
        "Rise of L0 from the first layer to the last, in points, with 95 % intervals",
        ("kind", "ramp fed in", "equal zeros"),
        [(a.kind, str(a), str(b)) for a, b in zip(study.trends, study.control_trends, strict=True)],
        name="figure-4-trends",
    )
    return kinds, trends


def pictures(study: AnatomyStudy) -> tuple[Picture, ...]:
    """Figure 4: L0 by kind of tensor and by depth."""
    series = (("printed", "paper", 1), ("simulated", "its means fed in", 0), ("control", "equal zeros, real sizes", 10))
    kinds = ", ".join(f"{row.kind} {row.printed[0]:.3f} and {row.control[0]:.3f}" for row in study.rows)
    rises = ", ".join(f"{t.kind} by {100 * t.rise:.1f} points" for t in study.trends)
    return (
        dots(
            "figure-4a",
            "Figure 4a. Sparsity by kind of tensor",
            f"L0 by kind, the paper's and that of equal zeros at real sizes: {kinds}.",
            [row.kind for row in study.rows],
            [
                Dots(label, color, [spread(i, *getattr(row, field)) for i, row in enumerate(study.rows)])
                for field, label, color in series
            ],
            x_label="L0",
        ),
        lines(
            "figure-4b",
            "Figure 4b. Sparsity by depth",
            f"L0 by layer of 80: with a ramp fed in it rises ({rises}), with equal zeros it is flat.",
            [
                curve(f"{kind}, {how}", color, enumerate(by_layer[kind]), dashed=dashed)
                for how, by_layer, dashed in (
                    ("ramp fed in", study.by_layer, False),
                    ("equal zeros", study.control_by_layer, True),
                )
                for kind, color in (("attention", 0 + 6 * dashed), ("mlp", 2 + 6 * dashed))
            ],
            x_label="layer",
            y_label="L0",
        ),
    )
