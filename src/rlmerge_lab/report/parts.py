"""Tables and pictures as data, and how pages, terminals and files show them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING

from rlmerge.report import svg
from rlmerge.report.console import Column, fitted
from rlmerge.report.page import grid, panel
from rlmerge.report.tables import plot, table
from rlmerge.text import plain

if TYPE_CHECKING:
    from rich.console import RenderableType

NONE = "–"

Legend = tuple[tuple[str, int], ...]
"""Name and colour number of each series."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table of text cells, of which the first ``labels`` of a row name it.

    ``note`` is what a reader must know besides the caption; ``name`` is the name of its file.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    name: str = ""
    labels: int = 1

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.head):
                raise ValueError(f"table '{self.caption}': {len(row)} cells for {len(self.head)} columns")

    def filled(self) -> Sheet:
        """Without rows and columns that hold nothing."""
        rows = [row for row in self.rows if any(cell != NONE for cell in row[1:])]
        kept = [i for i in range(len(self.head)) if not i or any(row[i] != NONE for row in rows)]
        return replace(self, head=[self.head[i] for i in kept], rows=[[row[i] for i in kept] for row in rows])

    def to_csv(self) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.head, *self.rows])
        return text.getvalue()


@dataclass(frozen=True, slots=True)
class Picture:
    """A chart: its anchor and file name, heading, how to read it, the SVG, its numbers, and what its colours mean."""

    key: str
    title: str
    note: str
    svg: str
    sheet: Sheet
    legend: Legend = ()


def html_sheet(sheet: Sheet, kind: str = "") -> str:
    """The table in HTML; ``wrap`` breaks its lines."""
    caption = f"{sheet.caption}. {sheet.note}" if sheet.note else sheet.caption
    return table(caption, sheet.head, sheet.rows, kind)


def html_sheets(sheets: Iterable[Sheet], kind: str = "") -> str:
    """Tables that hold something, one under the other."""
    panels = [panel(html_sheet(sheet, kind)) for sheet in sheets if sheet.rows]
    return grid("".join(panels), "grid one") if panels else ""


def html_pictures(pictures: Iterable[Picture], *, named: bool = False) -> str:
    """Pictures that show something, side by side, each with its numbers; ``named`` says below each what is what."""
    drawn = [
        plot(p.title, p.note, p.svg + (_key(p.legend) if named else ""), html_sheet(p.sheet))
        for p in pictures
        if p.sheet.rows
    ]
    return grid("".join(drawn)) if drawn else ""


def _key(legend: Legend) -> str:
    """Which mark is which, under a chart whose series are in no legend of the page."""
    marks = "".join(
        f'<li><svg viewBox="0 0 14 14" aria-hidden="true" class="s{color}">{svg.marker(7, 7, color, name)}</svg>'
        f"{escape(name)}</li>"
        for name, color in legend
    )
    return f'<ul class="key">{marks}</ul>' if marks else ""


def text_sheet(sheet: Sheet, width: int) -> list[RenderableType]:
    """The table for a terminal; one that is too wide goes in parts below each other, each with the columns that name.

    Every column is in one of them. Words are cut where a part of two columns is still too wide.
    """
    columns = [
        Column(plain(title), [plain(row[i]) for row in sheet.rows], rank=i, left=i < sheet.labels)
        for i, title in enumerate(sheet.head)
    ]
    labels = [replace(column, rank=0) for column in columns[: sheet.labels]]
    rest = columns[sheet.labels :]
    parts: list[RenderableType] = []
    while rest:
        part, gone = fitted([*labels, replace(rest[0], rank=0), *rest[1:]], width)
        parts.append(part)
        rest = rest[len(rest) - len(gone) :]
    return parts
