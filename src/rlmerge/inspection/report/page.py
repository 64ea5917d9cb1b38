"""An inspection as one self-contained HTML file: no network, both themes, any width, printable, keyboard and reader."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

from rlmerge.geometry.definitions import DEFINITIONS, Measure
from rlmerge.inspection.report import charts
from rlmerge.inspection.results import SCHEMA, Finding, Inspection, Pair, Recommendation
from rlmerge.report.axes import finite
from rlmerge.report.page import Section, capital, finding, findings, grid, legend, page, panel
from rlmerge.report.svg import COLORS
from rlmerge.report.tables import matrix, number, share, table
from rlmerge.text import displayed

WIDE = 4
"""Experts up to which two matrices fit side by side."""

FIGURES = (
    *("norm", "relative_norm", "unchanged_bits", "small_absolute", "small_relative"),
    *("gini", "kurtosis", "top1_mass", "top5_mass", "l0"),
)

Cell = tuple[str, str, float] | None
"""Value, small print and strength of a cell of a matrix."""


def inspect_html(found: Inspection) -> str:
    """The report of an inspection."""
    found = displayed(found)
    names = found.names
    updates = charts.magnitudes(found) + charts.modules(found) + charts.depth(found)
    sections: list[Section] = [
        ("verdict", "Verdict", findings(map(_finding, found.findings))),
        ("start", "A recipe to start from", _recipe(found.recommendation)),
        ("models", "Models and updates", _models(found)),
        ("survival", "What each method would leave", grid(charts.survival(found)) if found.forecasts else ""),
        (
            "updates",
            "How large and where",
            grid(updates),
        ),
        ("overlap", "Overlap and conflict", _overlap(found) if len(names) > 1 else ""),
        ("spectrum", "Spectrum", grid(charts.spectrum(found)) if found.spectra else ""),
        ("all", "All tensors", charts.tensors(found)),
        ("definitions", "What the figures mean", _definitions()),
    ]
    return page(
        title=f"rlmerge inspect: {', '.join(names)} on {found.base.name}",
        heading="Will they merge?",
        summary=_summary(found),
        sections=sections,
        legend=legend([(name, k % COLORS) for k, name in enumerate(names)], "Show or hide experts"),
        legend_after=3,
        footer=f"rlmerge {found.version}, schema {SCHEMA}. "
        "Every figure is exact unless a bound or a sample is given beside it.",
    )


def _summary(found: Inspection) -> str:
    base, count = found.base, len(found.experts)
    return (
        f"{count} expert{'s' if count > 1 else ''} of {base.name}: {base.parameters:,} weights in "
        f"{base.tensors} tensors, stored in {base.dtype}."
    )


def _finding(found: Finding) -> str:
    figures = table("Figures", ["figure", "value"], [[name, number(value)] for name, value in found.figures.items()])
    more = f"<details><summary>Figures</summary>{figures}</details>"
    return finding(found.level, capital(found.title), found.text, more)


def _recipe(recommendation: Recommendation | None) -> str:
    if recommendation is None:
        return "<p>None: the verdict above says what has to be settled first.</p>"
    reasons = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(capital(reason))}.</dd>" for name, reason in recommendation.reasons.items()
    )
    return (
        '<p class="soft">Save it as recipe.yaml and run rlmerge merge recipe.yaml -o OUT. It is a start: sweep the '
        'weights on development data.</p><div class="grid"><div class="panel recipe">'
        '<button type="button" id="copy">Copy</button>'
        f'<pre id="recipe" tabindex="0">{escape(recommendation.yaml)}</pre>'
        f'</div><div class="panel"><dl>{reasons}</dl></div></div>'
    )


def _models(found: Inspection) -> str:
    rows = [
        [expert.model.name, expert.model.dtype, *(_figure(expert.figures.get(key)) for key in FIGURES)]
        for expert in found.experts
    ]
    head = ["expert", "dtype", *(DEFINITIONS[key].label for key in FIGURES)]
    base = found.base
    note = f"Measured against {base.reference} ({base.dtype}). ‘Below 1 % of max’ does not measure sparsity."
    return panel(table(note, head, rows))


def _figure(measure: Measure | None) -> str:
    if measure is None:
        return "–"
    show = share if measure.definition.unit == "share" else number
    return f"{show(measure.value)} ± {show(measure.error)}" if measure.error else show(measure.value)


def _overlap(found: Inspection) -> str:
    matrices = [
        _matrix(
            found,
            "Jaccard of changed weights",
            "Beside its chance value for footprints of these sizes.",
            _jaccard,
        ),
        _matrix(
            found,
            "Cosine of the updates",
            "Beside the spread of random signs on the same magnitudes.",
            _cosine,
        ),
        _matrix(
            found,
            "Conflict share Σ|C⁻|/Σ|C|",
            "C = τ_a ⊙ τ_b. Small: share of opposite signs. Random signs give 50 % of both.",
            _conflict,
        ),
        _matrix(
            found,
            "Distance ‖τ_a − τ_b‖ / √(‖τ_a‖‖τ_b‖)",
            "√2 = 1.41 when orthogonal and equally long.",
            _distance,
        ),
    ]
    # Matrices of many experts need the full width.
    kind = "grid" if len(found.names) <= WIDE else "grid one"
    return grid("".join(matrices), kind) + grid(charts.sharing(found))


def _matrix(found: Inspection, title: str, note: str, show: Callable[[Pair], Cell]) -> str:
    pairs = {frozenset((pair.a, pair.b)): pair for pair in found.pairs}

    def cell(a: str, b: str) -> Cell:
        pair = pairs.get(frozenset((a, b)))
        return None if pair is None else show(pair)

    return matrix(title, note, found.names, cell)


def _jaccard(pair: Pair) -> Cell:
    measure = pair.figures["jaccard"]
    return (share(measure.value), f"chance {share(measure.null)}", measure.value) if finite(measure.value) else None


def _cosine(pair: Pair) -> Cell:
    measure = pair.figures["cosine"]
    shown = f"{measure.value + 0.0:.3f}".replace("-0.000", "0.000")
    return (shown, f"null ±{number(measure.null_sd)}", measure.value) if finite(measure.value) else None


def _conflict(pair: Pair) -> Cell:
    value = pair.figures["conflict_share"].value
    signs = f"signs {share(pair.figures['sign_conflict'].value)}"
    return (share(value), signs, 4 * (0.5 - value)) if finite(value) else None


def _distance(pair: Pair) -> Cell:
    value = pair.figures["distance"].value
    return (f"{value:.2f}", f"‖C⁻‖ {number(pair.figures['conflict_norm'].value)}", 0.0) if finite(value) else None


def _definitions() -> str:
    rows = [
        [d.label, d.formula, d.threshold or "none", d.null or "none", d.status, d.source, d.caution]
        for d in DEFINITIONS.values()
    ]
    head = ["figure", "definition", "threshold", "chance or null", "status", "source", "caution"]
    return panel(table("How each figure is defined, and how sure that is", head, rows, "wrap"))
