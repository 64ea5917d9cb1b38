"""The charts of an inspection report: which figure is drawn how, and what it says in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from rlmerge.inspection.results import Group, Inspection, TrendOf
from rlmerge.report.curves import Curve, Point, curve_plot
from rlmerge.report.rows import Dot, Dots, bar_plot, dot_plot, stack_plot
from rlmerge.report.svg import COLORS
from rlmerge.report.tables import number, plot, share, table

METHOD_WIDTH = 184
"""Units of a chart that the names of methods take."""


def survival(found: Inspection) -> str:
    """What each method leaves after rounding: all changes, and each expert's own."""
    forecasts = [*([found.after] if found.after else []), *found.forecasts]
    names, labels = found.names, [forecast.label.replace("arithmetic", "arith.") for forecast in forecasts]
    dtype, sampled = forecasts[0].dtype, min(forecast.sampled for forecast in forecasts)
    basis = "exact" if sampled == 1 else f"from {sampled:.1%} of the weights, evenly spread"
    kept = [
        Dots(name, k % COLORS, [Dot(i, forecast.experts[k].realised) for i, forecast in enumerate(forecasts)])
        for k, name in enumerate(names)
    ]
    worst = min(forecasts, key=lambda forecast: math.inf if math.isnan(forecast.survived) else forecast.survived)
    routers = ["survive, routers"] if found.routers else []
    data = table(
        f"Predicted outcome, rounded to {dtype}, {basis}",
        ["method", "status", "survive", *routers, *(f"erased, {n}" for n in names), *(f"kept, {n}" for n in names)],
        [
            [
                forecast.label,
                forecast.status,
                share(forecast.survived),
                *([share(forecast.routers)] if found.routers else []),
                *(share(outcome.erased) for outcome in forecast.experts),
                *(number(outcome.realised) for outcome in forecast.experts),
            ]
            for forecast in forecasts
        ],
    )
    first = bar_plot(
        "Changes that survive, by method",
        f"A bar for each method; the shortest is {share(worst.survived)} ({worst.label}).",
        labels,
        [forecast.survived for forecast in forecasts],
        x_label="survive, of all changed weights",
        percent=True,
        label_width=METHOD_WIDTH,
    )
    second = dot_plot(
        "Realised coefficient on each expert's own changes, by method",
        "A dot per expert and method; 1 means that the expert's own change arrives whole.",
        labels,
        kept,
        x_label="Σ(θ* − θ₀)τ / Στ² on own coordinates",
        references=[1.0],
        label_width=METHOD_WIDTH,
    )
    note = f"Output rounded to {dtype}, {basis}. A method may also drop changes on purpose (TIES, DARE)."
    whole = "1 (dashed) is whole; below is dilution, above amplification."
    return plot("Changes that survive", note, first, data) + plot(
        "How much of an expert's own change arrives", whole, second, data
    )


def magnitudes(found: Inspection) -> str:
    """Histogram of |τ| by powers of two."""
    shares = [
        {e: count / max(1, expert.entries - expert.nonfinite) for e, count in expert.magnitudes.items()}
        for expert in found.experts
    ]
    curves = [
        Curve(name, k % COLORS, [Point(e, own.get(e, 0.0)) for e in range(min(own), max(own) + 1)] if own else [])
        for k, (name, own) in enumerate(zip(found.names, shares, strict=True))
    ]
    exponents = sorted({int(point.x) for curve in curves for point in curve.points})
    data = table(
        "Share of all weights with |τ| in [2^e, 2^(e+1))",
        ["e", *found.names],
        [[power(e), *(share(own.get(e, 0.0)) for own in shares)] for e in exponents],
    )
    chart = curve_plot(
        "Update magnitudes",
        "One curve per expert over powers of two; unchanged weights are not drawn.",
        curves,
        x_label="|τ|, powers of two",
        y_label="share of all weights",
        percent=True,
        whole_x=True,
        x_text=power,
        within=[0.0],
    )
    dtype = found.experts[0].figures["norm"].dtype
    note = f"Exact counts in {dtype}; unchanged weights (τ = 0) are left out of the curve but count in the total."
    return plot("Update magnitudes", note, chart, data)


def depth(found: Inspection) -> str:
    """Unchanged share and relative norm by layer, with trends."""
    unchanged, size = ([getattr(layer, field) for layer in found.layers] for field in ("unchanged", "relative_norm"))
    return (
        _depth(found, "unchanged_bits", unchanged, "Unchanged weights by depth", "unchanged", percent=True)
        + _depth(found, "relative_norm", size, "Update size by depth", "‖τ‖ / ‖θ₀‖", percent=False)
        if found.layers
        else ""
    )


def _depth(
    found: Inspection, key: str, rows: Sequence[Sequence[float]], title: str, y_label: str, *, percent: bool
) -> str:
    layers = [layer.label for layer in found.layers]
    curves = [
        Curve(name, k % COLORS, [Point(float(layer), row[k]) for layer, row in zip(layers, rows, strict=True)])
        for k, name in enumerate(found.names)
    ]
    show = share if percent else number
    data = table(
        title, ["layer", *found.names], [[layer, *map(show, row)] for layer, row in zip(layers, rows, strict=True)]
    )
    chart = curve_plot(
        title, "One curve per expert.", curves, x_label="layer", y_label=y_label, percent=percent, whole_x=True
    )
    trends = "; ".join(_trend(trend, percent) for trend in found.trends if trend.figure == key)
    return plot(title, f"Slope per layer, 95 % interval: {trends}.", chart, data)


def modules(found: Inspection) -> str:
    """Unchanged share and share of the update by module type."""
    unchanged = [module.unchanged for module in found.modules]
    energy = [module.energy for module in found.modules]
    stored, where = "Stored value equals the base's.", "Share of an expert's ‖τ‖² in each module type."
    return _modules(
        found.names, found.modules, unchanged, "Unchanged weights by module type", stored, "unchanged"
    ) + _modules(found.names, found.modules, energy, "Where the update sits", where, "share of ‖τ‖²")


def _modules(
    names: Sequence[str],
    groups: Sequence[Group],
    rows: Sequence[Sequence[float]],
    title: str,
    note: str,
    x_label: str,
) -> str:
    series = [Dots(name, k % COLORS, [Dot(i, row[k]) for i, row in enumerate(rows)]) for k, name in enumerate(names)]
    cells = [[g.label, f"{g.entries:,}", *map(share, row)] for g, row in zip(groups, rows, strict=True)]
    data = table(title, ["module", "weights", *names], cells)
    chart = dot_plot(title, note, [group.label for group in groups], series, percent=True, x_label=x_label)
    return plot(title, note, chart, data)


def sharing(found: Inspection) -> str:
    """How many experts changed what each of them changed."""
    count = len(found.experts)
    kinds = ["changed by it alone", *(f"changed by exactly {j} experts" for j in range(2, count + 1))]
    labels, parts = list[str](), list[Sequence[float]]()
    for expert in found.experts:
        labels += [expert.model.name, "by chance"]
        parts += [expert.shared_exactly, expert.shared_by_chance]
    rows = [[label, *map(share, row)] for label, row in zip(labels, parts, strict=True)]
    data = table("Share of each expert's changes", ["expert", *kinds], rows)
    chart = stack_plot("Sharing", "Per expert, a bar as measured and a bar by chance.", labels, parts, kinds)
    note = (
        "Light: only that expert changed the weight; the darker, the more experts did. Chance: independent footprints."
    )
    return plot("Who else changed the same weights", note, chart, data)


def spectrum(found: Inspection) -> str:
    """Singular value shift and rotation, by matrix."""
    spectra = found.spectra
    matrices = list(dict.fromkeys(one.tensor for one in spectra))
    exact = all(one.error == 0 for one in spectra)
    how = "Complete decompositions" if exact else f"Relative error up to {max(one.error for one in spectra):.1e}"
    rows = [
        [
            one.tensor,
            one.expert,
            *map(number, (one.nss, one.angle_left, one.angle_right)),
            *map(share, (one.mask_overlap, one.mask_chance)),
            *map(number, (one.stable_rank, one.error)),
        ]
        for one in spectra
    ]
    head = ["matrix", "expert", "NSS", "left °", "right °", "mask overlap", "chance", "stable rank of τ", "error"]
    note = f"{how}. Published for Qwen3-8B: NSS 1e-3 after SFT, 1e-5 after RLVR; angles above 10° and below 0.5°."
    charts: list[str] = []
    for field, title, y_label in (
        ("nss", "Normalised spectral shift ‖σ(W₊) − σ(W₀)‖ / ‖σ(W₀)‖", "NSS"),
        ("angle_left", "Rotation of the leading directions", "mean angle, degrees"),
    ):
        curves = [
            Curve(
                name,
                k % COLORS,
                [Point(matrices.index(one.tensor), getattr(one, field)) for one in spectra if one.expert == name],
            )
            for k, name in enumerate(found.names)
        ]
        chart = curve_plot(
            title,
            "One curve per expert over the matrices in file order.",
            curves,
            x_label="matrix, in file order",
            y_label=y_label,
            whole_x=True,
            within=[0.0],
        )
        charts.append(plot(title, note, chart, table(f"{title}; {how}", head, rows)))
    return "".join(charts)


def tensors(found: Inspection) -> str:
    """Every tensor, to be sorted and filtered."""
    names = found.names
    heads = [
        "tensor",
        "type",
        "layer",
        "shape",
        *(f"unchanged, {n}" for n in names),
        *(f"‖τ‖/‖θ₀‖, {n}" for n in names),
    ]
    columns = "".join(f'<th scope="col"><button type="button">{escape(head)}</button></th>' for head in heads)
    lines: list[str] = []
    for row in found.tensors:
        layer = "" if row.layer is None else str(row.layer)
        cells = [
            f'<th scope="row">{escape(row.name)}</th>',
            f'<td class="left">{escape(row.kind)}</td>',
            f'<td data-value="{layer or -1}">{layer or "–"}</td>',
            f'<td data-value="{math.prod(row.shape)}">{escape(" × ".join(map(str, row.shape)) or "scalar")}</td>',
            *(f'<td data-value="{_sorted_by(value)}">{share(value)}</td>' for value in row.unchanged),
            *(f'<td data-value="{_sorted_by(value)}">{number(value)}</td>' for value in row.relative_norm),
        ]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    count = len(lines)
    return (
        '<div class="tools"><label>Filter <input type="search" id="filter" placeholder="q_proj, layers.3 …"></label>'
        f'<span class="soft" id="shown" aria-live="polite">{count} of {count} tensors</span></div>'
        '<div class="panel scroll tall" tabindex="0" role="region" aria-label="All tensors"><table id="tensors">'
        f"<thead><tr>{columns}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def power(exponent: float) -> str:
    """``2⁻¹²`` for -12."""
    return "2" + f"{exponent:g}".translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _sorted_by(value: float) -> str:
    return repr(value) if math.isfinite(value) else "-1"


def _trend(trend: TrendOf, percent: bool) -> str:
    found = trend.trend
    if not math.isfinite(found.slope):
        return f"{trend.expert} none"
    scale, unit = (100, " points") if percent else (1, "")
    interval = f" [{number(scale * found.low)}, {number(scale * found.high)}]" if math.isfinite(found.low) else ""
    return f"{trend.expert} {number(scale * found.slope)}{unit}{interval}"
