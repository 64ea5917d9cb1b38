"""All fits of the law, their bootstrap intervals, and published measurements beside it."""

from __future__ import annotations

from rlmerge_lab.scaling import published
from rlmerge_lab.scaling.studies.law import Interval, LawStudy
from rlmerge_lab.scaling.table import Table, percent


def tables(study: LawStudy) -> tuple[Table, ...]:
    fits = Table(
        "law-fits",
        "The law s(N) = 1 − a·N⁻ᵇ, fitted every way",
        ("fit", "to", "a", "b", "R²", "s(70B)"),
        tuple(
            (f.name, f.points, f"{f.law.a:.4f}", f"{f.law.b:.4f}", f"{f.r2:.4f}", f"{f.at_70:.4f}") for f in study.fits
        ),
        "R² is on the points each law was fitted to; through two points it is 1 by construction.",
        labels=2,
    )
    intervals = Table(
        "law-intervals",
        "95 % bootstrap intervals of the least-squares fit",
        ("redrawn", "a", "b", "s(70B)"),
        tuple((b.kind, _interval(b.a), _interval(b.b), _interval(b.at_70, 4)) for b in study.bootstraps),
        f"{study.bootstraps[0].draws} draws, seed {study.seed}.",
    )
    law = study.fit("least squares").law
    measured = Table(
        "law-published",
        "The law beside real RL checkpoints",
        ("checkpoint", "unchanged weights", "the law says"),
        (
            *((m.label, _range(m), percent(law.at(m.billions))) for m in published.MEASURED),
            *(
                (f"{m.name} (yours, {m.billions:g}B)", percent(m.sparsity), percent(law.at(m.billions)))
                for m in study.measured
            ),
        ),
        f"Published: {published.SOURCE}. The law is about simulated L0, so the columns measure different things; "
        "the paper reads them as one.",
    )
    return fits, intervals, measured


def _interval(interval: Interval, digits: int = 3) -> str:
    return f"{interval.low:.{digits}f} to {interval.high:.{digits}f}"


def _range(measurement: published.Measurement) -> str:
    if measurement.low == measurement.high:
        return percent(measurement.low, 0)
    return f"{100 * measurement.low:.0f} to {percent(measurement.high, 0)}"
