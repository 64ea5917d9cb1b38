"""An outcome on a terminal: verdicts first, then the tables."""

from __future__ import annotations

from rich.console import Console
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from rlmerge_lab.scaling.registry import Outcome
from rlmerge_lab.scaling.table import Table
from rlmerge_lab.scaling.verdict import Claim, Verdict

_STYLE = {Verdict.REPRODUCED: "green", Verdict.IN_KIND: "yellow", Verdict.NOT_REPRODUCED: "red"}
MARK = {Verdict.REPRODUCED: "✓", Verdict.IN_KIND: "≈", Verdict.NOT_REPRODUCED: "✗"}


def show(outcome: Outcome, console: Console) -> None:
    """Print one study."""
    console.print(Text(outcome.title, style="bold"))
    console.print(Text(outcome.summary, style="dim"))
    for claim in outcome.claims:
        _show_claim(claim, console)
    for table in outcome.tables:
        _show_table(table, console)
    seed = getattr(outcome.result, "seed", None)
    drawn = "nothing is drawn" if seed is None else f"seed {seed}"
    console.print(Text(f"{tally(outcome)}; {drawn}; {outcome.seconds:.1f} s", style="bold"), end="\n\n")


def tally(outcome: Outcome) -> str:
    """``3 reproduced, 1 reproduced in kind, 2 not reproduced``."""
    return ", ".join(f"{outcome.count(verdict)} {verdict}" for verdict in Verdict if outcome.count(verdict))


def _show_claim(claim: Claim, console: Console) -> None:
    console.print()
    verdict = (f"{MARK[claim.verdict]} {claim.verdict}  ", _STYLE[claim.verdict])
    console.print(Text.assemble(verdict, (claim.statement, "bold"), (f"  {claim.where}", "dim")))
    console.print(
        Padding(Text.assemble("paper ", (claim.paper, "cyan"), "   ours ", (claim.ours, "cyan")), (0, 0, 0, 2))
    )
    console.print(Padding(Text(claim.reason), (0, 0, 0, 2)))


def _show_table(table: Table, console: Console) -> None:
    """Print a table; one that is too wide goes in parts below each other, each with the label columns."""
    parts = column_parts(table, console.width)
    for index, columns in enumerate(parts):
        title, note = (table.title if index == 0 else None), (table.note if index == len(parts) - 1 else "")
        grid = RichTable(title=title, title_justify="left", caption=note or None, caption_justify="left")
        for column in columns:
            justify = "left" if column < table.labels else "right"
            grid.add_column(table.columns[column], justify=justify, min_width=_cell_width(table, column))
        for row in table.rows:
            grid.add_row(*(row[column] for column in columns))
        console.print()
        console.print(grid)


def column_parts(table: Table, width: int) -> list[list[int]]:
    """Columns, by index, of the fewest tables that fit into ``width`` without breaking a cell or a header's word."""
    words = [max(map(len, header.split())) for header in table.columns]
    widths = [max(word, _cell_width(table, column)) for column, word in enumerate(words)]
    labels = list(range(table.labels))
    parts = [labels]
    for column in range(table.labels, len(table.columns)):
        # Rich draws two blanks and a line for each column, and one line more.
        if sum(widths[c] + 3 for c in [*parts[-1], column]) + 1 > width and len(parts[-1]) > len(labels):
            parts.append(list(labels))
        parts[-1] = [*parts[-1], column]
    return parts


def _cell_width(table: Table, column: int) -> int:
    return max((len(row[column]) for row in table.rows), default=0)
