"""A calibration as one self-contained HTML file."""

from __future__ import annotations

from html import escape

from rlmerge.calibration.results import STAGES
from rlmerge.report.curves import Curve, Point, curve_plot
from rlmerge.report.page import Section, capital, finding, findings, grid, legend, page
from rlmerge.report.rows import Dot, Dots, dot_plot
from rlmerge.report.tables import plot, table

from .words import Result, coefficient_rows, divergence_rows, headline, judgement


def calibration_html(result: Result) -> str:
    """The report of the JSON-able result of ``rlmerge calibrate`` (schema ``rlmerge.calibrate/1``)."""
    level, text = judgement(result)
    verdict = [finding(level, text, "")] + [finding("warning", warning, "") for warning in result["warnings"]]
    sections: list[Section] = [
        ("verdict", "Verdict", findings(verdict)),
        ("coefficients", "Coefficients", grid(_coefficients(result))),
        ("divergences", "How far from each expert", _divergences(result)),
        ("search", "The search", grid(_search(result))),
        ("recipe", "The recipe", _recipe(result)),
    ]
    return page(
        title=f"rlmerge calibrate: {', '.join(result['experts'])}",
        heading="Which coefficients follow the experts?",
        summary=f"{capital(headline(result))}.",
        sections=sections,
        legend=legend(((name, k % 8) for k, name in enumerate(result["rows"])), "Experts"),
        legend_after=1,
        footer=f"rlmerge {result['rlmerge']}, schema {result['schema']}. Held on {result['held']}.",
    )


def _coefficients(result: Result) -> str:
    rows = list(coefficient_rows(result))
    title = f"{capital(result['parameter'])} by group of tensors"
    note = "A dot for each expert. 1 adds an expert's whole change; the dashed line is there."
    series = [
        Dots(name, k % 8, [Dot(g, value) for g, value in enumerate(values)])
        for k, (name, values) in enumerate(zip(result["rows"], result["values"], strict=True))
    ]
    chart = dot_plot(
        title, note, result["groups"], series, x_label=result["parameter"], references=[1.0], label_width=180
    )
    body = ([label, *cells] for label, cells in rows)
    return plot(title, note, chart, table(title, ["tensors", *result["rows"]], body))


def _divergences(result: Result) -> str:
    body = ([name, prompts, *cells] for name, prompts, cells in divergence_rows(result))
    note = '<p class="soft">KL(expert ‖ merged) on the expert’s own responses, nats a token; 0 is the expert.</p>'
    return note + table("Divergence from each expert", ["from", "prompts", *STAGES.values()], body)


def _search(result: Result) -> str:
    points = [Point(float(number), value) for number, value in enumerate(result["history"], 1)]
    title, note = "Objective over evaluations", "The weighted sum of divergences, with what the ridge adds."
    line = Curve("objective", 0, points, toggled=False)
    chart = curve_plot(title, note, [line], x_label="evaluation", y_label="nats a token", whole_x=True)
    body = ([f"{point.x:.0f}", f"{point.y:.6g}"] for point in points)
    return plot(title, note, chart, table(title, ["evaluation", "objective"], body))


def _recipe(result: Result) -> str:
    return (
        '<div class="panel recipe"><button type="button" id="copy">Copy</button>'
        f'<pre id="recipe" tabindex="0">{escape(result["recipe"])}</pre></div>'
    )
