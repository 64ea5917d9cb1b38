"""Section 3.1: the law fitted to Table 1, how firm it is, what it was fitted to, and real checkpoints beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rlmerge.errors import RequestError
from rlmerge_lab.report.charts import curve, lines
from rlmerge_lab.report.parts import Picture, Sheet

from . import article
from .simulation import CALIBRATED, Law, fit, fit_log, l0_of_zero_share, r_squared, rng, zero_share_of_gini
from .sparsity import FIXED_ENTRIES, entries_at, published_ranges
from .verdict import Claim, holds, percent, printed

STUDY = 2
DRAWS = 1000
SIZES = tuple(row.billions for row in article.TABLE_1)


@dataclass(frozen=True, slots=True)
class Fit:
    """One fit: what it was fitted to, the law, R² on those points, and its value at 70B."""

    name: str
    points: str
    law: Law
    r2: float
    at_70: float


@dataclass(frozen=True, slots=True)
class Interval:
    low: float
    high: float

    def text(self, digits: int = 3) -> str:
        return f"{self.low:.{digits}f} to {self.high:.{digits}f}"


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """95 % percentile intervals of the least-squares fit.

    ``kind`` is ``trials`` (each mean redrawn from N(mean, std / sqrt(5)) as printed) or ``scales`` (sizes redrawn with
    replacement, which asks how much the fit hangs on single sizes).
    """

    kind: str
    draws: int
    a: Interval
    b: Interval
    at_70: Interval


@dataclass(frozen=True, slots=True)
class Measured:
    """A checkpoint the user measured: billions of parameters, and share of unchanged weights."""

    name: str
    billions: float
    sparsity: float

    @classmethod
    def parse(cls, text: str) -> Measured:
        """``"mine=7.6B:0.72"`` or ``"mine=7600000000:72%"``; RequestError for anything else."""
        found = _FORM.fullmatch(text.strip())
        if not found:
            raise RequestError(
                f"'{text}' is no measurement",
                where="--measured",
                hint="Write name=params:sparsity, for example mine=7.6B:0.72 or mine=7615616512:72%.",
            )
        billions = float(found["size"]) * _UNITS[found["unit"]]
        sparsity = float(found["share"]) / (100 if found["percent"] else 1)
        if billions <= 0 or sparsity > 1:
            raise RequestError(
                f"'{text}' has {billions:g} billion parameters and a sparsity of {sparsity:g}",
                where="--measured",
                hint="The size must be positive and the sparsity between 0 and 1 (or 0% and 100%).",
            )
        return cls(found["name"].strip(), billions, sparsity)


_UNITS = {"": 1e-9, "K": 1e-6, "M": 1e-3, "B": 1.0, "T": 1e3}
_FORM = re.compile(
    r"(?P<name>[^=]+)=(?P<size>\d+(?:\.\d*)?(?:[eE]\d+)?)(?P<unit>[KMBT]?):(?P<share>\d*\.?\d+(?:[eE]-?\d+)?)(?P<percent>%?)"
)


@dataclass(frozen=True, slots=True)
class LawStudy:
    """All fits by name: to printed values, others', and closed-form L0 curves that test where the exponent is from."""

    seed: int
    fits: tuple[Fit, ...]
    bootstraps: tuple[Bootstrap, ...]
    measured: tuple[Measured, ...]

    def fit(self, name: str) -> Fit:
        return next(f for f in self.fits if f.name == name)

    def bootstrap(self, kind: str) -> Bootstrap:
        return next(b for b in self.bootstraps if b.kind == kind)


def run(seed: int = 0, measured: Sequence[Measured] = (), draws: int = DRAWS) -> LawStudy:
    """Fit the law every way; ``measured`` adds a fit to the user's own checkpoints (two sizes or more)."""
    l0 = [row.l0 for row in article.TABLE_1]
    std = [row.l0_std for row in article.TABLE_1]
    zeros = [zero_share_of_gini(row.gini) for row in article.TABLE_1]
    fed = [CALIBRATED.at(n) for n in SIZES]
    grown = [l0_of_zero_share(s, entries_at(n)) for n, s in zip(SIZES, fed, strict=True)]
    fixed = [l0_of_zero_share(s, FIXED_ENTRIES) for s in fed]
    constant = [l0_of_zero_share(fed[0], entries_at(n)) for n in SIZES]
    sizes = [m.billions for m in article.PUBLISHED]
    middles = [m.middle for m in article.PUBLISHED]
    fits = [
        _fit("least squares", "Table 1, L0", fit(SIZES, l0), SIZES, l0),
        _fit("weighted", "Table 1, L0, by 1/std²", fit(SIZES, l0, std), SIZES, l0),
        _fit("log-log", "Table 1, ln(1 − L0)", fit_log(SIZES, l0), SIZES, l0),
        _fit("calibration", "the two measured points", CALIBRATED, *zip(*article.CALIBRATION, strict=True)),
        _fit("zeros by Gini", "Table 1, zeros its Gini implies", fit(SIZES, zeros), SIZES, zeros),
        _fit("growing length", "expected L0 of the calibrated zeros", fit(SIZES, grown), SIZES, grown),
        _fit("fixed length", f"the same at {FIXED_ENTRIES:,} entries", fit(SIZES, fixed), SIZES, fixed),
        _fit("constant zeros", "expected L0, same zeros at every size", fit(SIZES, constant), SIZES, constant),
        _fit("published", "published bf16 checkpoints", fit(sizes, middles), sizes, middles),
    ]
    if measured:
        n, s = [m.billions for m in measured], [m.sparsity for m in measured]
        fits.append(_fit("measured", "your checkpoints", fit(n, s), n, s))
    return LawStudy(seed, tuple(fits), bootstraps(seed, l0, std, draws), tuple(measured))


def bootstraps(seed: int, l0: Sequence[float], std: Sequence[float], draws: int) -> tuple[Bootstrap, ...]:
    """Both bootstraps of the least-squares fit to Table 1."""
    sizes, means = np.asarray(SIZES), np.asarray(l0)
    error = np.asarray(std) / np.sqrt(article.TRIALS)
    generator = rng(seed, STUDY, 0)
    by_trial = [fit(SIZES, np.minimum(generator.normal(means, error), 1.0).tolist()) for _ in range(draws)]
    generator, by_scale = rng(seed, STUDY, 1), list[Law]()
    while len(by_scale) < draws:
        chosen = generator.integers(0, sizes.size, sizes.size)
        if np.unique(chosen).size > 1:
            by_scale.append(fit(sizes[chosen].tolist(), means[chosen].tolist()))
    return (_bootstrap("trials", by_trial), _bootstrap("scales", by_scale))


def _bootstrap(kind: str, laws: list[Law]) -> Bootstrap:
    def interval(values: list[float]) -> Interval:
        edges: npt.NDArray[np.float64] = np.percentile(values, (2.5, 97.5))
        return Interval(float(edges[0]), float(edges[1]))

    a, b, at_70 = zip(*((law.a, law.b, law.at(70)) for law in laws), strict=True)
    return Bootstrap(kind, len(laws), interval([*a]), interval([*b]), interval([*at_70]))


def _fit(name: str, points: str, law: Law, billions: Sequence[float], sparsity: Sequence[float]) -> Fit:
    return Fit(name, points, law, r_squared(law, billions, sparsity), law.at(70))


def claims(study: LawStudy) -> tuple[Claim, ...]:
    """Statements of sections 2.6, 3.1, 3.3 and 4 about the sparsity law."""
    nls, calibration, gini = (study.fit(name) for name in ("least squares", "calibration", "zeros by Gini"))
    law, trials, scales = nls.law, study.bootstrap("trials"), study.bootstrap("scales")
    missed = max(abs(law.at(n) - s) for n, s in article.CALIBRATION)
    covered = sum(m.high >= law.at(m.billions) for m in article.PUBLISHED)
    beside = ", ".join(f"{m.label} {_points(m, '–')} (law {100 * law.at(m.billions):.0f})" for m in article.PUBLISHED)
    values = [
        Claim(
            f"The fitted law at {billions:g}B",
            "§3.1",
            f"{paper:.3f}",
            f"{law.at(billions):.4f}",
            printed(law.at(billions), paper, 3),
            f"The law through the two measured points gives {calibration.law.at(billions):.3f}.",
        )
        for billions, paper in article.LAW_VALUES.items()
    ]
    return (
        Claim(
            "Coefficient a of s(N) = 1 − a·N⁻ᵇ", "§3.1", f"{article.FIT_A:.3f}",
            f"{law.a:.4f}",
            printed(law.a, article.FIT_A, 3),
            f"95 % interval {trials.a.text()} over trials, {scales.a.text()} over sizes.",
        ),
        Claim(
            "Exponent b", "§3.1", f"{article.FIT_B:.3f}",
            f"{law.b:.4f}",
            printed(law.b, article.FIT_B, 3),
            f"95 % interval {trials.b.text(2)} over trials, {scales.b.text(2)} over sizes; weighted "
            f"{study.fit('weighted').law.b:.3f}, log-log {study.fit('log-log').law.b:.3f}.",
        ),
        Claim(
            "Coefficient of determination R²", "§3.1", f"{article.FIT_R2:.3f}",
            f"{nls.r2:.4f}",
            printed(nls.r2, article.FIT_R2, 3),
            "High because the points were generated from a law of the same form: the zeros implied by the printed Gini "
            f"column follow {gini.law} with R² {gini.r2:.3f}.",
        ),
        *values,
        Claim(
            "The law matches its calibration points", "§2.6, Fig. 1", "0.85 at 3B, 0.90 at 7B",
            ", ".join(f"{law.at(n):.3f} at {n:g}B" for n, _ in article.CALIBRATION),
            holds(missed < 0.01),
            f"The fit misses them by up to {100 * missed:.1f} points. Two points already fix the law: "
            f"{calibration.law}.",
        ),
        Claim(
            "Sparsity exceeds 99 % at 70B", "abstract, §4", "> 0.99",
            f"{calibration.at_70:.3f} by the calibration points",
            holds(calibration.at_70 > 0.99 and gini.at_70 > 0.99),
            f"Only L0 of the simulated vectors does. The share of zeros fed in at 70B is {calibration.at_70:.3f}, and "
            f"the printed Gini implies {gini.at_70:.3f}. The paper gives 93 % (§3.3), 94.1 % (Table 3) and 99.3 % "
            "(§3.1) for the same model size.",
        ),
        Claim(
            "The exponent 0.587 is a property of sparsity", "§3.1, §4", "b = 0.587",
            f"{gini.law.b:.3f} for the zeros themselves",
            holds(abs(gini.law.b - article.FIT_B) < 0.02),
            f"L0 at a fixed vector length gives {study.fit('fixed length').law.b:.3f}, with vectors that grow with the "
            f"model {study.fit('growing length').law.b:.3f}, and growing vectors with the same zeros at every size "
            f"still give {study.fit('constant zeros').law.b:.3f}.",
        ),
        Claim(
            "The law describes real RL checkpoints", "§4", f"{article.LAW_VALUES[70.0]:.3f} at 70B",
            f"R² {study.fit('published').r2:.2f} for a law fitted to published runs",
            holds(covered == len(article.PUBLISHED)),
            f"{covered} of {len(article.PUBLISHED)} published bf16 measurements reach the law: {beside}, in %. They "
            "show no clean trend with size.",
        ),
    )  # fmt: skip


def _points(measurement: article.Measurement, to: str) -> str:
    """Low and high in percent, once where they are equal."""
    return to.join(dict.fromkeys(f"{100 * share:.0f}" for share in (measurement.low, measurement.high)))


def tables(study: LawStudy) -> tuple[Sheet, ...]:
    """All fits of the law, their bootstrap intervals, and measurements beside it."""
    law = study.fit("least squares").law
    fits = Sheet(
        "The law s(N) = 1 − a·N⁻ᵇ, fitted every way",
        ("fit", "to", "a", "b", "R²", "s(70B)"),
        [(f.name, f.points, f"{f.law.a:.4f}", f"{f.law.b:.4f}", f"{f.r2:.4f}", f"{f.at_70:.4f}") for f in study.fits],
        "R² is on the points each law was fitted to; through two points it is 1 by construction.",
        "law-fits",
        labels=2,
    )
    intervals = Sheet(
        "95 % bootstrap intervals of the least-squares fit",
        ("redrawn", "a", "b", "s(70B)"),
        [(b.kind, b.a.text(), b.b.text(), b.at_70.text(4)) for b in study.bootstraps],
        f"{study.bootstraps[0].draws} draws, seed {study.seed}.",
        "law-intervals",
    )
    own = [(f"{m.name} (yours, {m.billions:g}B)", percent(m.sparsity), m.billions) for m in study.measured]
    published = [(m.label, f"{_points(m, ' to ')} %", m.billions) for m in article.PUBLISHED]
    measured = Sheet(
        "The law beside real RL checkpoints",
        ("checkpoint", "unchanged weights", "the law says"),
        [(name, found, percent(law.at(billions))) for name, found, billions in (*published, *own)],
        f"Published: {article.PUBLISHED_SOURCE}. The law is about simulated L0, so the columns measure different "
        "things; the paper reads them as one.",
        "law-published",
    )
    return fits, intervals, measured


def pictures(study: LawStudy) -> tuple[Picture, ...]:
    """The active share 1 - s on logarithmic axes: every law is a line, and the lines disagree."""
    nls, calibration = study.fit("least squares"), study.fit("calibration")
    grid = np.geomspace(1, 405, 12).tolist()
    implied = [(row.billions, 1 - zero_share_of_gini(row.gini)) for row in article.TABLE_1]
    curves = [curve("1 − L0, paper", 1, [(row.billions, 1 - row.l0) for row in article.TABLE_1])]
    curves.append(curve("non-zeros implied by the paper's Gini", 0, implied))
    for words, color, law in (("least squares", 7, nls.law), ("through the calibration points", 6, calibration.law)):
        name = f"{words}: {law.a:.3f}·N^−{law.b:.3f}"
        curves.append(curve(name, color, [(n, 1 - law.at(n)) for n in grid], dashed=True))
    curves += published_ranges("changed weights of real checkpoints (bf16)", 3, changed=True)
    # A checkpoint in which nothing changed has no place on a logarithmic axis.
    own = sorted((m.billions, 1 - m.sparsity) for m in study.measured if m.sparsity < 1)
    if own:
        curves.append(curve("your checkpoints", 2, own))
    note = (
        f"The paper's fit falls with exponent {nls.law.b:.2f} to {1 - nls.at_70:.3f} at 70B; the law through its "
        f"calibration points falls with {calibration.law.b:.2f} to {1 - calibration.at_70:.3f}, and the zeros implied "
        "by the paper's Gini lie on that line. Published checkpoints lie above both, between 0.08 and 0.64."
    )
    title, x_label, y_label = "The law and its points", "billions of parameters", "active share, 1 − s"
    return (lines("law", title, note, curves, x_label=x_label, y_label=y_label, percent=True, log="xy"),)
