"""A table as data: what a terminal, a CSV file and an HTML page all show."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Table:
    """Cells are already formatted text; the first ``labels`` columns are words, the others numbers.

    ``note`` is the caption below; ``name`` becomes the file name.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    labels: int = 1

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.name}: {len(row)} cells for {len(self.columns)} columns")

    def to_csv(self) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.columns, *self.rows])
        return text.getvalue()


def percent(share: float, digits: int = 1) -> str:
    """0.9412 as ``94.1 %``."""
    return f"{100 * share:.{digits}f} %"


def plus_minus(mean: float, std: float, digits: int = 4) -> str:
    return f"{mean:.{digits}f} ± {std:.{digits}f}"
