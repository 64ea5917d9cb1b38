"""Parts of a terminal report: amounts in words, tables that drop columns rather than break words, and rendering."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from io import StringIO
from typing import TYPE_CHECKING, Any

from rlmerge.frozen import frozen
from rlmerge.text import columns as columns_of
from rlmerge.text import fit

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

MARKS = {"problem": ("✗", "bold red"), "warning": ("!", "bold yellow"), "info": ("·", "cyan"), "good": ("✓", "green")}
"""How a finding of each level begins, and its style."""

_GAP, _SHORTEST = 2, 6


@frozen(slots=True)
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


def size_text(nbytes: int) -> str:
    """Bytes in decimal units with three digits: ``512 B``, ``1.98 GB``."""
    size = float(nbytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB" if size < 999.5 else f"{size:.0f} TB"


def duration_text(seconds: float) -> str:
    """``0.42 s`` below a minute, ``1:05`` or ``2:03:09`` from there on."""
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def table(*titles: str, rules: bool = True) -> Table:
    """A table without a frame, and without ``rules`` without a line below its head; ``>TITLE`` is right-aligned."""
    from rich import box
    from rich.table import Table

    look: dict[str, Any] = {"box": box.SIMPLE_HEAD, "padding": (0, 1), "caption_justify": "left"}
    plain_look: dict[str, Any] = {"box": None, "padding": (0, 2, 0, 0), "show_header": any(titles)}
    made = Table(pad_edge=False, header_style="bold", **(look if rules else plain_look))
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


def warning_lines(warnings: Iterable[str]) -> Iterable[RenderableType]:
    """Warnings, a part each."""
    for warning in warnings:
        from rich.text import Text

        yield Text.assemble(("warning: ", "bold yellow"), str(warning))


def render(parts: Iterable[RenderableType], width: int, color: bool, *, apart: bool = False) -> str:
    """The parts one under the other, without trailing blanks.

    ``apart`` puts a blank line between them and prints strings as they are, without wrapping.
    """
    parts = list(parts)
    if apart and all(isinstance(part, str) for part in parts):
        return _stripped("\n\n".join(map(str, parts)))
    from rich.console import Console
    from rich.text import Text

    stream = StringIO()
    console = Console(
        file=stream,
        width=max(width, 40),
        force_terminal=color,
        color_system="standard" if color else None,
        highlight=False,
        markup=False,
        emoji=False,
    )
    for index, part in enumerate(parts):
        if apart and index:
            console.print()
        whole = apart and isinstance(part, str)
        console.print(Text(part) if isinstance(part, str) else part, soft_wrap=whole)
    return _stripped(stream.getvalue())


def _stripped(text: str) -> str:
    """Lines without blanks at their ends, the last one without a line break."""
    return "\n".join(line.rstrip() for line in text.rstrip("\n").splitlines())
