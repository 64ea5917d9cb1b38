"""The charts of an inspection report: which figure is drawn how, and what it says in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from . import svg
from .svg import Series
from .tables import number, plot, share, table

Result = Mapping[str, Any]
COLORS = 12


def survival(result: Result, names: Sequence[str]) -> str:
    """What each method leaves after rounding: all changes, and each expert's own."""
    forecasts = [*([result["after"]] if result["after"] else []), *result["forecasts"]]
    labels = [forecast["label"].replace("task arithmetic", "task arith.") for forecast in forecasts]
    dtype = forecasts[0]["dtype"]
    sampled = min(f["sampled"] for f in forecasts)
    basis = "exact" if sampled == 1 else f"from {sampled:.1%} of the weights, evenly spread"
    union = Series("all experts", 0, [(i, _nan(f["survived"])) for i, f in enumerate(forecasts)])
    kept = [
        Series(name, k % COLORS, [(i, _nan(f["experts"][k]["realised"])) for i, f in enumerate(forecasts)])
        for k, name in enumerate(names)
    ]
    worst = min(forecasts, key=lambda f: _nan(f["survived"]) if f["survived"] is not None else math.inf)
    data = table(
        f"Predicted outcome, rounded to {dtype}, {basis}",
        ["method", "status", "survive", *(f"erased, {n}" for n in names), *(f"kept, {n}" for n in names)],
        [
            [
                f["label"],
                f["status"],
                share(f["survived"]),
                *(share(o["erased"]) for o in f["experts"]),
                *(number(o["realised"]) for o in f["experts"]),
            ]
            for f in forecasts
        ],
    )
    first = svg.rows(
        "Changes that survive, by method",
        f"Bars from {share(worst['survived'])} ({worst['label']}) upwards.",
        labels,
        [union],
        percent=True,
        x_label="survive, of all changed weights",
        bars=True,
    )
    second = svg.rows(
        "Realised coefficient on each expert's own changes, by method",
        "A dot per expert and method; 1 means that the expert's own change arrives whole.",
        labels,
        kept,
        percent=False,
        x_label="Σ(θ* − θ₀)τ / Στ² on own coordinates",
        reference=1.0,
    )
    note = f"Output rounded to {dtype}, {basis}. A method may also drop changes on purpose (TIES, DARE)."
    return plot("Changes that survive", note, first, data) + plot(
        "How much of an expert's own change arrives", "1 (dashed) is whole; below is dilution, above amplification.",
        second, data,
    )  # fmt: skip


def magnitudes(result: Result, names: Sequence[str]) -> str:
    """Histogram of |τ| by powers of two."""
    series: list[Series] = []
    for k, expert in enumerate(result["experts"]):
        found = {int(e): c for e, c in expert["magnitudes"].items()}
        span = range(min(found), max(found) + 1) if found else range(0)
        total = max(1, expert["entries"] - expert["nonfinite"])
        series.append(Series(names[k], k % COLORS, [(e, found.get(e, 0) / total) for e in span]))
    exponents = sorted({int(e) for s in series for e, _ in s.points})
    lookup = [dict(s.points) for s in series]
    data = table(
        "Share of all weights with |τ| in [2^e, 2^(e+1))",
        ["e", *names],
        [[power(e), *(share(found.get(e, 0.0)) for found in lookup)] for e in exponents],
    )
    chart = svg.lines(
        "Update magnitudes",
        "One curve per expert over powers of two; unchanged weights are not drawn.",
        series,
        x_label="|τ|, powers of two",
        y_label="share of all weights",
        percent=True,
        x_text=power,
        from_zero=True,
    )
    dtype = result["experts"][0]["figures"]["norm"]["dtype"]
    note = f"Exact counts in {dtype}; unchanged weights (τ = 0) are left out of the curve but count in the total."
    return plot("Update magnitudes", note, chart, data)


def depth(result: Result, names: Sequence[str]) -> str:
    """Unchanged share and relative norm by layer, with trends."""
    layers = result["layers"]
    if not layers:
        return ""
    charts: list[str] = []
    for key, field, title, percent in (
        ("unchanged_bits", "unchanged", "Unchanged weights by depth", True),
        ("relative_norm", "relative_norm", "Update size by depth", False),
    ):
        series = [
            Series(name, k % COLORS, [(float(g["label"]), _nan(g[field][k])) for g in layers])
            for k, name in enumerate(names)
        ]
        show = share if percent else number
        data = table(title, ["layer", *names], [[g["label"], *(show(v) for v in g[field])] for g in layers])
        chart = svg.lines(
            title, "One curve per expert.", series, x_label="layer", y_label="unchanged" if percent else "‖τ‖ / ‖θ₀‖",
            percent=percent,
        )  # fmt: skip
        trends = [t for t in result["trends"] if t["figure"] == key]
        note = "Slope per layer, 95 % interval: " + "; ".join(_trend(t, percent) for t in trends) + "."
        charts.append(plot(title, note, chart, data))
    return "".join(charts)


def modules(result: Result, names: Sequence[str]) -> str:
    """Unchanged share and share of the update by module type."""
    groups = result["modules"]
    labels = [group["label"] for group in groups]
    charts: list[str] = []
    for field, title, note, label in (
        ("unchanged", "Unchanged weights by module type", "Stored value equals the base's.", "unchanged"),
        ("energy", "Where the update sits", "Share of an expert's ‖τ‖² in each module type.", "share of ‖τ‖²"),
    ):
        series = [
            Series(name, k % COLORS, [(i, _nan(g[field][k])) for i, g in enumerate(groups)])
            for k, name in enumerate(names)
        ]
        data = table(
            title,
            ["module", "weights", *names],
            [[g["label"], f"{g['entries']:,}", *(share(v) for v in g[field])] for g in groups],
        )
        chart = svg.rows(title, note, labels, series, percent=True, x_label=label)
        charts.append(plot(title, note, chart, data))
    return "".join(charts)


def sharing(result: Result, names: Sequence[str]) -> str:
    """How many experts changed what each of them changed."""
    count = len(names)
    kinds = ["changed by it alone", *(f"changed by exactly {j} experts" for j in range(2, count + 1))]
    labels, parts = list[str](), list[Sequence[float]]()
    for expert in result["experts"]:
        labels += [expert["model"]["name"], "by chance"]
        parts += [[_nan(v) for v in expert["shared_exactly"]], [_nan(v) for v in expert["shared_by_chance"]]]
    data = table("Share of each expert's changes", ["expert", *kinds], [
        [label, *(share(None if math.isnan(v) else v) for v in row)] for label, row in zip(labels, parts, strict=True)
    ])  # fmt: skip
    chart = svg.stacks("Sharing", "Per expert, a bar as measured and a bar by chance.", labels, parts, kinds)
    note = (
        "Light: only that expert changed the weight; the darker, the more experts did. Chance: independent footprints."
    )
    return plot("Who else changed the same weights", note, chart, data)


def spectrum(result: Result, names: Sequence[str]) -> str:
    """Singular value shift and rotation, by matrix."""
    spectra = result["spectra"]
    matrices = list(dict.fromkeys(s["tensor"] for s in spectra))
    charts: list[str] = []
    exact = all(s["error"] == 0 for s in spectra)
    how = "Complete decompositions" if exact else f"Relative error up to {max(s['error'] for s in spectra):.1e}"
    for field, title, label in (
        ("nss", "Normalised spectral shift ‖σ(W₊) − σ(W₀)‖ / ‖σ(W₀)‖", "NSS"),
        ("angle_left", "Rotation of the leading directions", "mean angle, degrees"),
    ):
        series = [
            Series(name, k % COLORS, [
                (float(matrices.index(s["tensor"])), _nan(s[field])) for s in spectra if s["expert"] == name
            ])
            for k, name in enumerate(names)
        ]  # fmt: skip
        chart = svg.lines(
            title, "One curve per expert over the matrices in file order.", series, x_label="matrix, in file order",
            y_label=label, percent=False, from_zero=True,
        )  # fmt: skip
        data = table(
            f"{title}; {how}",
            ["matrix", "expert", "NSS", "left °", "right °", "mask overlap", "chance", "stable rank of τ", "error"],
            [
                [
                    s["tensor"], s["expert"], number(s["nss"]), number(s["angle_left"]), number(s["angle_right"]),
                    share(s["mask_overlap"]), share(s["mask_chance"]), number(s["stable_rank"]), number(s["error"]),
                ]
                for s in spectra
            ],
        )  # fmt: skip
        note = f"{how}. Published for Qwen3-8B: NSS 1e-3 after SFT, 1e-5 after RLVR; angles above 10° and below 0.5°."
        charts.append(plot(title, note, chart, data))
    return "".join(charts)


def power(exponent: float) -> str:
    """``2⁻¹²`` for -12."""
    return "2" + f"{exponent:g}".translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _trend(trend: Result, percent: bool) -> str:
    found = trend["trend"]
    if found["slope"] is None:
        return f"{trend['expert']} none"
    scale, unit = (100, " points") if percent else (1, "")
    slope, low, high = (None if found[k] is None else scale * found[k] for k in ("slope", "low", "high"))
    interval = "" if low is None else f" [{number(low)}, {number(high)}]"
    return f"{trend['expert']} {number(slope)}{unit}{interval}"


def _nan(value: float | None) -> float:
    return math.nan if value is None else value
