"""Parts of a terminal report: tables that drop columns rather than break words, and rendering to text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import StringIO
from typing import TYPE_CHECKING

from .axes import columns as columns_of
from .axes import fit

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

MARKS = {"problem": ("✗", "bold red"), "warning": ("!", "bold yellow"), "info": ("·", "cyan"), "good": ("✓", "green")}
"""How a finding of each level begins, and its style."""

_GAP, _SHORTEST = 2, 6


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a fitted table: of those that do not fit, the one with the highest ``rank`` is left out first."""

    title: str
    cells: Sequence[str]
    rank: int = 0
    left: bool = False

    @property
    def width(self) -> int:
        """Terminal columns of the widest cell."""
        return max(columns_of(text) for text in (self.title, *self.cells))


def table(*titles: str) -> Table:
    """A borderless table; a heading that starts with ``>`` is right-aligned."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), header_style="bold", caption_justify="left")
    for title in titles:
        right = title.startswith(">")
        made.add_column(title.removeprefix(">"), justify="right" if right else "left", overflow="fold")
    return made


def fitted(columns: Sequence[Column], width: int) -> tuple[Table, list[str]]:
    """A table of at most ``width`` columns, and the titles of what was left out to get there.

    Columns of rank 0 always stay; should they alone be too wide, left-aligned cells lose their middle, longest first.
    """
    kept = list(columns)
    while _total(kept) > width and any(column.rank for column in kept):
        kept.remove(max(kept, key=lambda column: (column.rank, columns.index(column))))
    gone = [column.title for column in columns if column not in kept]
    made = table(*(column.title if column.left else f">{column.title}" for column in kept))
    made.padding, made.show_edge = (0, 1, 0, 0), False
    for row in zip(*(column.cells for column in _cut(kept, width)), strict=True):
        made.add_row(*row)
    return made, gone


def _cut(columns: Sequence[Column], width: int) -> list[Column]:
    """The columns with left-aligned cells cut, the widest first, until all fits or none is wider than its title."""
    cut = list(columns)
    while (excess := _total(cut) - width) > 0:
        long = [column for column in cut if column.left and column.width > _least(column)]
        if not long:
            break
        long.sort(key=lambda column: column.width)
        widest, next_width = long[-1], long[-2].width if len(long) > 1 else 0
        room = max(_least(widest), widest.width - excess, min(next_width, widest.width - 1))
        cut[cut.index(widest)] = replace(widest, cells=[fit(text, room, size=1) for text in widest.cells])
    return cut


def _least(column: Column) -> int:
    return max(_SHORTEST, columns_of(column.title))


def _total(columns: Sequence[Column]) -> int:
    return sum(column.width for column in columns) + _GAP * (len(columns) - 1)


def render(parts: Sequence[RenderableType], width: int, color: bool) -> str:
    """The parts one under the other, without trailing blanks."""
    from rich.console import Console

    stream = StringIO()
    console = Console(
        file=stream,
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        highlight=False,
        markup=False,
        emoji=False,
    )
    for part in parts:
        console.print(part)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())
