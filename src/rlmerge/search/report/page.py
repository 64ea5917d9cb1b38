"""A search as one self-contained HTML file: no network, both themes, any width, printable, keyboard and reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from rlmerge.report.curves import Curve, Point, curve_plot
from rlmerge.report.page import Section, capital, finding, findings, grid, page, panel
from rlmerge.report.rows import Dot, Dots, dot_plot
from rlmerge.report.tables import plot, share, table

from .words import coefficient_rows, ends, failed, fixed, headline, history, is_proxy, told, verdicts, winner

Result = Mapping[str, Any]


def tune_html(result: Result) -> str:
    """The report of the JSON-able result of ``rlmerge tune`` (schema ``rlmerge.tune/1``)."""
    sections: list[Section] = [
        ("verdict", "Verdict", _verdict(result)),
        ("warnings", "Warnings", _warnings(result)),
        ("best", "The recipe", _recipe(result)),
        ("confirmed", "On items that chose nothing", _confirmed(result)),
        ("history", "The search", grid(_history(result) + _stopped(result))),
        ("front", "Pareto front", grid(_front(result)) if result["front"] else ""),
        ("values", "Coefficients and what matters", grid(_values(result) + _importance(result))),
        ("proxies", "What the proxies are worth", _proxies(result)),
        ("trials", "All trials", _trials(result)),
        ("definitions", "What the figures mean", _definitions(result)),
    ]
    return page(
        title=f"rlmerge tune: {', '.join(result['experts'])} on {result['base']}",
        heading="Which recipe is best?",
        summary=f"{capital(headline(result))}.",
        sections=sections,
        footer=f"rlmerge {result['rlmerge']}, schema {result['schema']}. The same figures, unrounded, are in "
        "tune.json; the trials are in study.db, which Optuna and its dashboard read.",
    )


def _verdict(result: Result) -> str:
    found = verdicts(result)
    if not found:
        return findings([finding("warning", "The winner was not confirmed on test items", "")])
    return findings(finding(v.level, capital(v.title), v.text) for v in found)


def _warnings(result: Result) -> str:
    return findings(finding("warning", capital(text), "") for text in result["warnings"]) if result["warnings"] else ""


def _recipe(result: Result) -> str:
    return (
        '<p class="soft">This is best.yaml: rlmerge merge best.yaml -o OUT.</p><div class="panel recipe">'
        '<button type="button" id="copy">Copy</button>'
        f'<pre id="recipe" tabindex="0">{escape(result["recipe"])}</pre></div>'
    )


def _confirmed(result: Result) -> str:
    rows = [row for row in result["finalists"] if row["test"] is not None]
    if not rows:
        return ""
    labels = [row["name"] for row in rows]
    test = [Dot(k, r["test"]["value"], r["test"]["low"], r["test"]["high"]) for k, r in enumerate(rows)]
    dev = [Dot(k, row["dev"]) for k, row in enumerate(rows)]
    name = result["comparisons"][0]["objective"] if result["comparisons"] else result["objectives"][0]["name"]
    title = f"{name} where models were chosen (dev) and on test"
    chart = dot_plot(
        title,
        "The winner's dev score is the highest of many, and so too high; nothing was chosen by the test score.",
        labels,
        [Dots("test", 0, test, False), Dots("dev", 1, dev, False)],
        x_label=name,
        label_width=_room(labels),
    )
    tasks = list(rows[0]["scores"])
    head = ["model", "is", "dev", "test, 95 %", *tasks]
    body = [
        [r["name"], r["role"], fixed(r["dev"]), ends(r["test"]), *(fixed(r["scores"][task]) for task in tasks)]
        for r in rows
    ]
    note = "Circle: test, with its interval. Square: dev, where the models were chosen."
    return grid(plot(title, note, chart, table("Scores of the finalists", head, body)))


def _history(result: Result) -> str:
    rows = history(result)
    name = result["objectives"][0]["name"]
    each = Curve("best so far", 0, [Point(number, best) for number, _, best in rows], toggled=False)
    trials = Curve("trial", 1, [Point(number, value) for number, value, _ in rows], dashed=True, toggled=False)
    level = max((row["values"][0] for row in result["baseline"]), default=None) if _is_scored(result) else None
    chart = curve_plot(
        "Objective over trials",
        f"{name} of every candidate that was scored to the end, and the best so far.",
        [each, trials],
        x_label="trial",
        y_label=name,
        references=() if level is None else (level,),
    )
    body = [[str(number), fixed(value), fixed(best)] for number, value, best in rows]
    note = "Solid: the best so far. Dashed: each trial that was scored to the end."
    if level is not None:
        note += " The level line is tuned task arithmetic, on the same items."
    return plot("Objective over trials", note, chart, table("Complete trials", ["trial", name, "best so far"], body))


def _is_scored(result: Result) -> bool:
    return not is_proxy(result["objectives"][0]["name"])


def _stopped(result: Result) -> str:
    shares = result["shares"]
    if len(shares) < 2:
        return ""
    curves = [
        Curve(f"trial {t['number']}", 1 if t["state"] == "complete" else 2, points, toggled=False)
        for t in result["trials"]
        if (points := [Point(shares[int(level)], value) for level, value in t["at_levels"].items()])
    ]
    name = result["objectives"][0]["name"]
    chart = curve_plot(
        "Stopped early",
        "Objective of each candidate on a quarter, half and all of the items.",
        curves,
        x_label="share of the items",
        y_label=name,
        percent=False,
    )
    head = ["trial", *(share(each) for each in shares)]
    body = [
        [str(t["number"]), *(fixed(t["at_levels"].get(str(level))) for level in range(len(shares)))]
        for t in result["trials"]
        if t["at_levels"]
    ]
    note = "Squares: scored to the end. Diamonds: stopped, since others were better on as many items."
    return plot("Stopped early", note, chart, table("Objective by share of the items", head, body))


def _front(result: Result) -> str:
    names = [objective["name"] for objective in result["objectives"]]
    done = [trial for trial in result["trials"] if trial["state"] == "complete"]
    chosen = sorted((t for t in done if t["number"] in result["front"]), key=lambda trial: trial["values"][0])
    line = Curve("front", 0, [Point(t["values"][0], t["values"][1]) for t in chosen], toggled=False)
    dots = [
        Curve(f"trial {t['number']}", 1, [Point(t["values"][0], t["values"][1])], toggled=False)
        for t in done
        if t["number"] not in result["front"]
    ]
    chart = curve_plot(
        "Pareto front",
        "No trial is as good as one of the front in every objective and better in one.",
        [line, *dots],
        x_label=names[0],
        y_label=names[1],
    )
    body = [[str(t["number"]), *(fixed(value) for value in t["values"])] for t in chosen]
    note = "Circles, joined: the front. Squares: the other trials."
    if len(names) > 2:
        note += f" Drawn by the first two of {len(names)} objectives."
    return plot("Pareto front", note, chart, table("The front", ["trial", *names], body))


def _values(result: Result) -> str:
    rows = coefficient_rows(result)
    if not rows:
        return ""
    labels = [row[0]["name"] for row in rows]
    dots = [Dot(k, best, low, high) for k, (_, best, low, high) in enumerate(rows)]
    chart = dot_plot(
        "Values",
        "The winner's values, and the span of the best quarter of the complete trials.",
        labels,
        [Dots("", 0, dots, False)],
        x_label="value",
        within=[end for _, _, low, high in rows for end in (low, high)],
        label_width=_room(labels),
    )
    body = [
        [label, told(best), told(low), told(high)] for label, (_, best, low, high) in zip(labels, rows, strict=True)
    ]
    note = (
        "Dot: the winner's value. Line: where the best quarter of the complete trials lies. A long line matters little."
    )
    return plot("Coefficients", note, chart, table("Values", ["parameter", "best", "from", "to"], body))


def _room(labels: Sequence[str]) -> int:
    """Width for the labels of rows, at most a little over half of a chart."""
    return min(240, max(120, 8 * max(map(len, labels))))


def _importance(result: Result) -> str:
    found = result["importance"]
    if not found:
        return ""
    dots = [Dot(k, value) for k, value in enumerate(found.values())]
    chart = dot_plot(
        "Importance",
        "Share of what decides the objective that is each parameter's.",
        list(found),
        [Dots("", 0, dots, False)],
        x_label="importance",
        percent=True,
        within=(0.0,),
        label_width=_room(list(found)),
    )
    body = [[name, share(value)] for name, value in found.items()]
    note = "PED-ANOVA over the complete trials; few trials make it rough."
    return plot("Importance", note, chart, table("Importance", ["parameter", "share"], body))


def _proxies(result: Result) -> str:
    rows = [[r["proxy"], fixed(r["rho"], 2), r["objective"], str(r["trials"])] for r in result["correlations"]]
    if not rows:
        return ""
    caption = "Spearman's rank correlation over candidates that were scored: near 1 a proxy ranks as the score does"
    return panel(table(caption, ["proxy", "rank correlation", "with", "candidates"], rows))


def _trials(result: Result) -> str:
    names = [dimension["name"] for dimension in result["dimensions"]]
    objectives = [objective["name"] for objective in result["objectives"]]
    rows: list[list[str]] = []
    for trial in result["trials"]:
        values = trial["values"] or [None] * len(objectives)
        chosen = [told(trial["parameters"][name]) if name in trial["parameters"] else "–" for name in names]
        shown = [fixed(value) for value in values]
        rows.append([str(trial["number"]), trial["state"], trial["origin"], *shown, *chosen])
    head = ["trial", "state", "from", *objectives, *names]
    every = panel(table("Every trial of the study", head, rows, "wrap"))
    errors = [[str(trial["number"]), trial["error"] or ""] for trial in failed(result)]
    return every + (panel(table("Why trials failed", ["trial", "error"], errors, "names wrap")) if errors else "")


def _definitions(result: Result) -> str:
    names = [objective["name"] for objective in result["objectives"]]
    rows = [
        [name, objective["meaning"].removeprefix(f"{name}: ")]
        for name, objective in zip(names, result["objectives"], strict=True)
    ]
    if winner(result) is not None:
        grid = len(result["baseline"])
        rows += [
            ["dev", "items that candidates were chosen by; the best of many is too high there"],
            ["test", "items that chose nothing; 95 % bootstrap intervals over items, the same items for all models"],
            ["tuned task arithmetic", f"one coefficient for all experts, the best on dev of a grid of {grid}"],
            ["better, worse", "the interval of the paired difference excludes 0; not shown otherwise"],
        ]
    if result["importance"]:
        rows.append(["importance", "PED-ANOVA, arXiv 2304.10255"])
    if result["correlations"] or any(map(is_proxy, names)):
        rows.append(["proxy", "computed from the merge, not from answers; no score"])
    return panel(table("How each figure is defined", ["figure", "definition"], rows, "wrap"))
