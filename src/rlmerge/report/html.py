"""An inspection as one self-contained HTML file: no network, both themes, any width, printable, keyboard and reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from . import plots, svg
from .tables import matrix, number, share, table, tensors

Result = Mapping[str, Any]

WIDE = 4
"""Experts up to which two matrices fit side by side."""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def inspect_html(result: Result) -> str:
    """The report of an inspection's JSON-able result (``Inspection.to_dict()``)."""
    names = [expert["model"]["name"] for expert in result["experts"]]
    sections = [
        ("verdict", "Verdict", _findings(result["findings"])),
        ("start", "A recipe to start from", _recipe(result["recommendation"])),
        ("models", "Models and updates", _models(result)),
        (
            "survival",
            "What each method would leave",
            _grid(plots.survival(result, names)) if result["forecasts"] else "",
        ),
        ("updates", "How large and where", _updates(result, names)),
        ("overlap", "Overlap and conflict", _overlap(result, names) if len(names) > 1 else ""),
        ("spectrum", "Spectrum", _grid(plots.spectrum(result, names)) if result["spectra"] else ""),
        ("all", "All tensors", tensors(result, names)),
        ("definitions", "What the figures mean", _definitions(result)),
    ]
    shown = [section for section in sections if section[2]]
    title = f"{', '.join(names)} on {result['base']['name']}"
    links = "".join(f'<a href="#{key}">{escape(head)}</a>' for key, head, _ in shown)
    body = "".join(_section(*section) for section in shown[:3]) + _legend(names)
    body += "".join(_section(*section) for section in shown[3:])
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>rlmerge inspect: {escape(title)}</title><style>{_asset('inspect.css')}</style></head><body>"
        '<a class="skip" href="#verdict">Skip to the verdict</a>'
        f"<header><h1>Will they merge?</h1><p class=soft>{escape(_summary(result))}</p>"
        f'<nav aria-label="Sections">{links}</nav></header><main>{body}</main>'
        f"<footer>rlmerge {escape(result['version'])}, schema {escape(result['schema'])}. "
        "Every figure is exact unless a bound or a sample is given beside it.</footer>"
        '<div id="tip" aria-hidden="true"></div><div id="said" class="skip" aria-live="polite"></div>'
        f"<script>{_asset('inspect.js')}</script></body></html>\n"
    )


def _section(key: str, head: str, content: str) -> str:
    title = f"{key}-title"
    return f'<section id="{key}" aria-labelledby="{title}"><h2 id="{title}">{escape(head)}</h2>{content}</section>'


def _summary(result: Result) -> str:
    base, count = result["base"], len(result["experts"])
    return (
        f"{count} expert{'s' if count > 1 else ''} of {base['name']}: {base['parameters']:,} weights in "
        f"{base['tensors']} tensors, stored in {base['dtype']}."
    )


def _findings(findings: Sequence[Result]) -> str:
    items: list[str] = []
    for finding in findings:
        figures = table(
            "Figures", ["figure", "value"], [[name, number(value)] for name, value in finding["figures"].items()]
        )
        text = f"<p>{escape(finding['text'])}</p>" if finding["text"] else ""
        items.append(
            f'<li class="{finding["level"]}"><span class="level">{finding["level"]}</span>'
            f"<strong>{escape(_capital(finding['title']))}</strong>{text}"
            f"<details><summary>Figures</summary>{figures}</details></li>"
        )
    return f'<ul class="findings">{"".join(items)}</ul>'


def _recipe(recommendation: Result | None) -> str:
    if recommendation is None:
        return "<p>None: the verdict above says what has to be settled first.</p>"
    reasons = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(_capital(reason))}.</dd>"
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


def _legend(names: Sequence[str]) -> str:
    buttons = "".join(
        f'<button type="button" aria-pressed="true" data-toggle="{k % plots.COLORS}">'
        f'<svg viewBox="0 0 14 14" aria-hidden="true" class="s{k % plots.COLORS}">'
        f"{svg.marker(7, 7, k % plots.COLORS, name)}</svg>{escape(name)}</button>"
        for k, name in enumerate(names)
    )
    return f'<div class="legend" role="group" aria-label="Show or hide experts">{buttons}</div>'


def _updates(result: Result, names: Sequence[str]) -> str:
    parts = [plots.magnitudes(result, names), plots.modules(result, names), plots.depth(result, names)]
    return _grid("".join(parts))


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
    return f'<div class="{kind}">{"".join(matrices)}</div>' + _grid(plots.sharing(result, names))


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


def _grid(content: str) -> str:
    return f'<div class="grid">{content}</div>'


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _asset(name: str) -> str:
    return (files("rlmerge.report") / "assets" / name).read_text(encoding="utf-8")
