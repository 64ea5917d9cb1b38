"""An outcome on a terminal: verdicts first, then the tables."""

from __future__ import annotations

from rich.console import Console
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from rlmerge.scaling.registry import Outcome
from rlmerge.scaling.table import Table
from rlmerge.scaling.verdict import Claim, Verdict

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
    console.print(Text(f"{MARK[claim.verdict]} {claim.verdict}", style=_STYLE[claim.verdict]), end="  ")
    console.print(Text.assemble((claim.statement, "bold"), (f"  {claim.where}", "dim")))
    console.print(
        Padding(Text.assemble("paper ", (claim.seed, "cyan"), "   ours ", (claim.ours, "cyan")), (0, 0, 0, 2))
    )
    console.print(Padding(Text(claim.reason), (0, 0, 0, 2)))


def _show_table(table: Table, console: Console) -> None:
    grid = RichTable(title=table.title, title_justify="left", caption=table.note or None, caption_justify="left")
    for index, column in enumerate(table.columns):
        grid.add_column(column, justify="left" if index < table.labels else "right", overflow="fold")
    for row in table.rows:
        grid.add_row(*row)
    console.print()
    console.print(grid)
