"""All outcomes as one HTML file that needs nothing else: styles inline, figures as data, no script."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from importlib.resources import files

from rlmerge import __version__
from rlmerge_lab.scaling import article
from rlmerge_lab.scaling.figures.style import Figure, Theme
from rlmerge_lab.scaling.registry import Outcome
from rlmerge_lab.scaling.render.files import image
from rlmerge_lab.scaling.render.terminal import MARK, tally
from rlmerge_lab.scaling.table import Table
from rlmerge_lab.scaling.verdict import Claim, Verdict

CLASS = {Verdict.REPRODUCED: "reproduced", Verdict.IN_KIND: "kind", Verdict.NOT_REPRODUCED: "not"}
_SHORT = {Verdict.REPRODUCED: "reproduced", Verdict.IN_KIND: "in kind", Verdict.NOT_REPRODUCED: "not"}
_PHONE = "(max-width: 640px)"
_DARK = "(prefers-color-scheme: dark)"


def page(outcomes: Sequence[Outcome], seed: int) -> str:
    """The whole report. Deterministic for the same outcomes but for the seconds they took."""
    style = files("rlmerge_lab.scaling.render").joinpath("page.css").read_text(encoding="utf-8")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Does sparsity persist? The scale study, run again</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1>Does sparsity persist? The scale study, run again</h1>
<p>The statements of “{escape(article.PAPER)}” held against computations of our own.</p>
<p class="muted">rlmerge {escape(__version__)}, seed {seed}. A statement is <b>reproduced</b> when our computation gives
the printed number, <b>reproduced in kind</b> when the effect comes out but the number hangs on a choice the paper does
not print or was put in by the simulation, and <b>not reproduced</b> otherwise, with the reason.</p>
{_summary(outcomes)}
</header>
<main>
{"".join(_section(outcome) for outcome in outcomes)}</main>
</body>
</html>
"""


def _summary(outcomes: Sequence[Outcome]) -> str:
    head = "".join(f'<th scope="col">{MARK[v]} {_SHORT[v]}</th>' for v in Verdict)
    body = "".join(
        f'<tr><th scope="row"><a href="#{o.name}">{escape(o.title)}</a></th>'
        + "".join(f'<td class="{CLASS[v]}">{o.count(v)}</td>' for v in Verdict)
        + "</tr>"
        for o in outcomes
    )
    total = "".join(f'<td class="{CLASS[v]}"><b>{sum(o.count(v) for o in outcomes)}</b></td>' for v in Verdict)
    return (
        '<nav class="scroll" aria-label="Studies and verdicts" tabindex="0"><table><thead><tr>'
        '<th scope="col">study</th>'
        f'{head}</tr></thead><tbody>{body}<tr><th scope="row">all</th>{total}</tr></tbody></table></nav>'
    )


def _section(outcome: Outcome) -> str:
    return f"""<section id="{outcome.name}" aria-labelledby="{outcome.name}-title">
<h2 id="{outcome.name}-title">{escape(outcome.title)}</h2>
<p class="muted">{escape(outcome.summary)} {escape(tally(outcome).capitalize())}; {outcome.seconds:.1f} s.</p>
<ul class="claims">
{"".join(_claim(claim) for claim in outcome.claims)}</ul>
{"".join(_figure(figure) for figure in outcome.figures)}{"".join(_table(table) for table in outcome.tables)}</section>
"""


def _claim(claim: Claim) -> str:
    return (
        f'<li class="{CLASS[claim.verdict]}"><span class="verdict">{MARK[claim.verdict]} {claim.verdict}</span>'
        f'<h3>{escape(claim.statement)} <span class="muted">{escape(claim.where)}</span></h3>'
        f"<dl><dt>paper</dt><dd>{escape(claim.paper)}</dd><dt>ours</dt><dd>{escape(claim.ours)}</dd></dl>"
        f"<p>{escape(claim.reason)}</p></li>\n"
    )


def _figure(figure: Figure) -> str:
    sources = "".join(
        f'<source media="{media}" srcset="{_data(figure, theme)}">\n'
        for media, theme in (
            (f"{_PHONE} and {_DARK}", Theme(dark=True, narrow=True)),
            (_PHONE, Theme(narrow=True)),
            (_DARK, Theme(dark=True)),
        )
    )
    return (
        f"<figure><picture>\n{sources}"
        f'<img src="{_data(figure, Theme())}" alt="{escape(figure.alt)}"></picture>'
        f"<figcaption>{escape(figure.title)}</figcaption></figure>\n"
    )


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col"{_side(i, table)}>{escape(c)}</th>' for i, c in enumerate(table.columns))
    body = "".join(
        "<tr>" + "".join(f"<td{_side(i, table)}>{escape(cell)}</td>" for i, cell in enumerate(row)) + "</tr>"
        for row in table.rows
    )
    note = f'<p class="muted">{escape(table.note)}</p>\n' if table.note else ""
    return (
        f'<h3 class="title" id="{table.name}">{escape(table.title)}</h3>\n'
        f'<div class="scroll" role="region" aria-labelledby="{table.name}" tabindex="0">'
        f'<table aria-labelledby="{table.name}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>\n'
        f"{note}"
    )


def _side(column: int, table: Table) -> str:
    return ' class="label"' if column < table.labels else ""


def _data(figure: Figure, theme: Theme) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(image(figure, "svg", theme)).decode()
