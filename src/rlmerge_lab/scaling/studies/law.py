"""Section 3.1: the law fitted to Table 1, how firm it is, and what it was fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rlmerge_lab.scaling import article, published
from rlmerge_lab.scaling.expectation import l0_of_zero_share, zero_share_of_gini
from rlmerge_lab.scaling.generator import rng
from rlmerge_lab.scaling.law import Law, fit, fit_log, r_squared, through
from rlmerge_lab.scaling.studies.sparsity import FIXED_ENTRIES, entries_at

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


@dataclass(frozen=True, slots=True)
class LawStudy:
    """All fits, by name; ``l0_*`` are closed-form L0 curves over the ten sizes that test where the exponent is from."""

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
    calibrated = through(*article.CALIBRATION)
    fed = [calibrated.at(n) for n in SIZES]
    grown = [l0_of_zero_share(s, entries_at(n)) for n, s in zip(SIZES, fed, strict=True)]
    fixed = [l0_of_zero_share(s, FIXED_ENTRIES) for s in fed]
    constant = [l0_of_zero_share(fed[0], entries_at(n)) for n in SIZES]
    sizes = [m.billions for m in published.MEASURED]
    middles = [m.middle for m in published.MEASURED]
    fits = [
        _fit("least squares", "Table 1, L0", fit(SIZES, l0), SIZES, l0),
        _fit("weighted", "Table 1, L0, by 1/std²", fit(SIZES, l0, std), SIZES, l0),
        _fit("log-log", "Table 1, ln(1 − L0)", fit_log(SIZES, l0), SIZES, l0),
        _fit("calibration", "the two measured points", calibrated, *zip(*article.CALIBRATION, strict=True)),
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

    return Bootstrap(
        kind,
        len(laws),
        interval([law.a for law in laws]),
        interval([law.b for law in laws]),
        interval([law.at(70) for law in laws]),
    )


def _fit(name: str, points: str, law: Law, billions: Sequence[float], sparsity: Sequence[float]) -> Fit:
    return Fit(name, points, law, r_squared(law, billions, sparsity), law.at(70))
