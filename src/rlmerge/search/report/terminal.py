"""A search in a terminal: what was found, how sure that is, and the recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rlmerge.report.console import MARKS, Column, fitted, render
from rlmerge.text import plain

from .words import coefficient_rows, ends, fixed, headline, told, verdicts

if TYPE_CHECKING:
    from rich.console import RenderableType

Result = Mapping[str, Any]

SHOWN = 8
"""Best trials that are listed."""


def tune_text(result: Result, *, width: int, color: bool) -> str:
    """The result of ``rlmerge tune`` (its JSON's keys) in at most ``width`` columns, 60 or more."""
    from rich.text import Text

    parts: list[RenderableType] = [Text(plain(headline(result)), style="bold")]
    for verdict in verdicts(result):
        mark, style = MARKS[verdict.level]
        parts.append(
            Text.assemble((f"{mark} ", style), (plain(verdict.title), "bold"), (f". {plain(verdict.text)}", "dim"))
        )
    for title, table in (
        ("Confirmed on test items", _finalists(result, width)),
        ("Best trials", _trials(result, width)),
        ("Values and where the best quarter lies", _values(result, width)),
        ("Proxies against the score", _proxies(result, width)),
    ):
        if table is not None:
            parts += ["", Text(title, style="bold cyan"), table]
    parts.append("")
    parts += [Text.assemble(("warning: ", "bold yellow"), plain(warning)) for warning in result["warnings"]]
    parts.append(Text.assemble(("recipe: ", "bold"), plain(f"{result['out']}/best.yaml")))
    if result["merged"]:
        parts.append(Text.assemble(("model: ", "bold"), plain(result["merged"])))
    return render(parts, width, color)


def _finalists(result: Result, width: int) -> RenderableType | None:
    rows = result["finalists"]
    if not rows:
        return None
    tasks = list(rows[0]["scores"])
    columns = [
        Column("model", [plain(row["name"]) for row in rows], left=True),
        Column("is", [row["role"] for row in rows], rank=1, left=True),
        Column("dev", [fixed(row["dev"]) for row in rows]),
        Column("test, 95 %", ["–" if row["test"] is None else ends(row["test"]) for row in rows]),
        *(
            Column(plain(task), [fixed(row["scores"].get(task)) for row in rows], rank=2 + place)
            for place, task in enumerate(tasks)
        ),
    ]
    return fitted(columns, width)[0]


def _trials(result: Result, width: int) -> RenderableType | None:
    done = sorted((t for t in result["trials"] if t["values"]), key=lambda trial: -trial["values"][0])[:SHOWN]
    if not done:
        return None
    names = [each["name"] for each in result["dimensions"] if any(each["name"] in t["parameters"] for t in done)]
    columns = [Column("trial", [str(trial["number"]) for trial in done])]
    for place, objective in enumerate(result["objectives"]):
        columns.append(Column(objective["name"], [fixed(trial["values"][place]) for trial in done]))
    for place, name in enumerate(names):
        cells = [told(t["parameters"][name]) if name in t["parameters"] else "–" for t in done]
        columns.append(Column(plain(name), [plain(cell) for cell in cells], rank=1 + place, left=True))
    return fitted(columns, width)[0]


def _values(result: Result, width: int) -> RenderableType | None:
    rows = coefficient_rows(result)
    if not rows:
        return None
    importance = result["importance"]
    columns = [
        Column("parameter", [plain(row[0]["name"]) for row in rows], left=True),
        Column("best", [told(row[1]) for row in rows]),
        Column("from", [told(row[2]) for row in rows], rank=1),
        Column("to", [told(row[3]) for row in rows], rank=1),
        Column(
            "importance",
            [f"{100 * importance[row[0]['name']]:.0f} %" if row[0]["name"] in importance else "–" for row in rows],
            rank=2,
        ),
    ]
    return fitted(columns, width)[0]


def _proxies(result: Result, width: int) -> RenderableType | None:
    rows = result["correlations"]
    if not rows:
        return None
    columns = [
        Column("proxy", [row["proxy"] for row in rows], left=True),
        Column("rank correlation", [fixed(row["rho"], 2) for row in rows]),
        Column("with", [row["objective"] for row in rows], left=True),
        Column("candidates", [str(row["trials"]) for row in rows], rank=1),
    ]
    return fitted(columns, width)[0]
