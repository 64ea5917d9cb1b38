"""Table 3 over real shapes, with the two simulations beside it."""

from __future__ import annotations

from rlmerge_lab.scaling.studies.anatomy import AnatomyStudy, Trend
from rlmerge_lab.scaling.table import Table, percent, plus_minus


def tables(study: AnatomyStudy) -> tuple[Table, ...]:
    rows = [
        (
            row.kind,
            str(row.count),
            percent(row.parameter_share, 3),
            plus_minus(*row.printed),
            plus_minus(*row.simulated),
            plus_minus(*row.control),
        )
        for row in study.rows
    ]
    rows.append(("all tensors", str(study.count), percent(1.0, 0), plus_minus(study.mean, study.std), "", ""))
    rows.append(("all, by parameters", "", "", f"{study.parameter_mean:.4f}", "", ""))
    kinds = Table(
        "table-3",
        f"Table 3. L0 by kind of tensor, shapes of {study.model}",
        ("kind", "tensors", "parameters", "L0 paper", "L0 of its means fed in", "L0 of equal zeros"),
        tuple(rows),
        f"The last column feeds every tensor {percent(study.fed)} zeros at its real size. Rows of totals are computed "
        "from the paper's rows.",
    )
    trends = Table(
        "figure-4-trends",
        "Rise of L0 from the first layer to the last, in points, with 95 % intervals",
        ("kind", "ramp fed in", "equal zeros"),
        tuple((a.kind, _rise(a), _rise(b)) for a, b in zip(study.trends, study.control_trends, strict=True)),
    )
    return kinds, trends


def _rise(trend: Trend) -> str:
    return f"{100 * trend.rise:+.2f} ({100 * trend.low:+.2f} to {100 * trend.high:+.2f})"
