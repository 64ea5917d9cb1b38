"""An inspection as one self-contained HTML file: no network, both themes, any width, printable, keyboard and reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from rlmerge.text import displayed

from . import plots
from .page import Section, capital, finding, findings, grid, legend, page
from .tables import matrix, number, share, table, tensors

Result = Mapping[str, Any]

WIDE = 4
"""Experts up to which two matrices fit side by side."""


def inspect_html(result: Result) -> str:
    """The report of an inspection's JSON-able result (``Inspection.to_dict()``)."""
    result = displayed(result)
    names = [expert["model"]["name"] for expert in result["experts"]]
    sections: list[Section] = [
        ("verdict", "Verdict", findings(map(_finding, result["findings"]))),
        ("start", "A recipe to start from", _recipe(result["recommendation"])),
        ("models", "Models and updates", _models(result)),
        (
            "survival",
            "What each method would leave",
            grid(plots.survival(result, names)) if result["forecasts"] else "",
        ),
        ("updates", "How large and where", _updates(result, names)),
        ("overlap", "Overlap and conflict", _overlap(result, names) if len(names) > 1 else ""),
        ("spectrum", "Spectrum", grid(plots.spectrum(result, names)) if result["spectra"] else ""),
        ("all", "All tensors", tensors(result, names)),
        ("definitions", "What the figures mean", _definitions(result)),
    ]
    return page(
        title=f"rlmerge inspect: {', '.join(names)} on {result['base']['name']}",
        heading="Will they merge?",
        summary=_summary(result),
        sections=sections,
        legend=legend([(name, k % plots.COLORS) for k, name in enumerate(names)], "Show or hide experts"),
        legend_after=3,
        footer=f"rlmerge {result['version']}, schema {result['schema']}. "
        "Every figure is exact unless a bound or a sample is given beside it.",
    )


def _summary(result: Result) -> str:
    base, count = result["base"], len(result["experts"])
    return (
        f"{count} expert{'s' if count > 1 else ''} of {base['name']}: {base['parameters']:,} weights in "
        f"{base['tensors']} tensors, stored in {base['dtype']}."
    )


def _finding(found: Result) -> str:
    figures = table("Figures", ["figure", "value"], [[name, number(value)] for name, value in found["figures"].items()])
    more = f"<details><summary>Figures</summary>{figures}</details>"
    return finding(found["level"], capital(found["title"]), found["text"], more)


def _recipe(recommendation: Result | None) -> str:
    if recommendation is None:
        return "<p>None: the verdict above says what has to be settled first.</p>"
    reasons = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(capital(reason))}.</dd>"
        for name, reason in recommendation["reasons"].items()
    )
    return (
        '<p class="soft">Save it as recipe.yaml and run rlmerge merge recipe.yaml -o OUT. It is a start: sweep the '
        'weights on development data.</p><div class="grid"><div class="panel recipe">'
        '<button type="button" id="copy">Copy</button>'
        f'<pre id="recipe" tabindex="0">{escape(recommendation["yaml"])}</pre>'
        f'</div><div class="panel"><dl>{reasons}</dl></div></div>'
    )


def _models(result: Result) -> str:
    keys = ("norm", "relative_norm", "unchanged_bits", "small_absolute", "small_relative", "gini", "kurtosis")
    keys += ("top1_mass", "top5_mass", "l0")
    definitions = result["definitions"]
    rows: list[list[str]] = []
    for expert in result["experts"]:
        cells = [expert["model"]["name"], expert["model"]["dtype"]]
        for key in keys:
            measure = expert["figures"].get(key)
            cells.append(_figure(measure, definitions[key]["unit"]) if measure else "–")
        rows.append(cells)
    head = ["expert", "dtype", *(definitions[key]["label"] for key in keys)]
    base = result["base"]
    note = f"Measured against {base['reference']} ({base['dtype']}). ‘Below 1 % of max’ is no sparsity measure."
    return f'<div class="panel">{table(note, head, rows)}</div>'


def _figure(measure: Result, unit: str) -> str:
    value = share(measure["value"]) if unit == "share" else number(measure["value"])
    if not measure.get("error"):
        return value
    return f"{value} ± {share(measure['error']) if unit == 'share' else number(measure['error'])}"


def _updates(result: Result, names: Sequence[str]) -> str:
    parts = [plots.magnitudes(result, names), plots.modules(result, names), plots.depth(result, names)]
    return grid("".join(parts))


def _overlap(result: Result, names: Sequence[str]) -> str:
    figures = {frozenset((p["a"], p["b"])): p["figures"] for p in result["pairs"]}

    def jaccard(a: str, b: str) -> tuple[str, str, float] | None:
        found = figures[frozenset((a, b))]["jaccard"]
        return (
            None
            if found["value"] is None
            else (share(found["value"]), f"chance {share(found['null'])}", found["value"])
        )

    def cosine(a: str, b: str) -> tuple[str, str, float] | None:
        found = figures[frozenset((a, b))]["cosine"]
        null = f"null ±{number(found.get('null_sd'))}"
        return (
            None
            if found["value"] is None
            else (f"{found['value'] + 0.0:.3f}".replace("-0.000", "0.000"), null, found["value"])
        )

    def conflict(a: str, b: str) -> tuple[str, str, float] | None:
        found = figures[frozenset((a, b))]
        value = found["conflict_share"]["value"]
        signs = f"signs {share(found['sign_conflict']['value'])}"
        return None if value is None else (share(value), signs, 4 * (0.5 - value))

    def distance(a: str, b: str) -> tuple[str, str, float] | None:
        found = figures[frozenset((a, b))]
        norm = f"‖C⁻‖ {number(found['conflict_norm']['value'])}"
        value = found["distance"]["value"]
        return None if value is None else (f"{value:.2f}", norm, 0.0)

    matrices = [
        matrix("Jaccard of changed weights", "Beside its chance value for footprints of these sizes.", names, jaccard),
        matrix("Cosine of the updates", "Beside the spread of random signs on the same magnitudes.", names, cosine),
        matrix(
            "Conflict share Σ|C⁻|/Σ|C|",
            "C = τ_a ⊙ τ_b. Small: share of opposite signs. Random signs give 50 % of both.",
            names,
            conflict,
        ),
        matrix("Distance ‖τ_a − τ_b‖ / √(‖τ_a‖‖τ_b‖)", "√2 = 1.41 when orthogonal and equally long.", names, distance),
    ]
    # Matrices of many experts need the full width.
    kind = "grid" if len(names) <= WIDE else "grid one"
    return f'<div class="{kind}">{"".join(matrices)}</div>' + grid(plots.sharing(result, names))


def _definitions(result: Result) -> str:
    rows = [
        [
            d["label"],
            d["formula"],
            d["threshold"] or "none",
            d["null"] or "none",
            d["status"],
            d["source"],
            d["caution"],
        ]
        for d in result["definitions"].values()
    ]
    head = ["figure", "definition", "threshold", "chance or null", "status", "source", "caution"]
    return f'<div class="panel">{table("How each figure is defined, and how sure that is", head, rows, "wrap")}</div>'
