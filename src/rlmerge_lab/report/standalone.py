"""A chart as an SVG file of its own: styles and legend inside, a ground behind, readable in light and dark."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from rlmerge.report import svg
from rlmerge.text import columns

SHOWN_WIDTH = 640
MARGIN, ROW, LETTER = 8, 20, 7


def standalone(chart: str, legend: Sequence[tuple[str, int]] = ()) -> str:
    """The file of a ``chart`` of :func:`rlmerge.report.svg.figure`, without what only a page can do (tips, focus).

    ``legend`` names the series by colour, above the chart. ValueError when ``chart`` is none.
    """
    found = re.match(r'<svg viewBox="0 0 (\d+) (\d+)" role="img" aria-label="([^"]*)"[^>]*>', chart)
    if found is None:
        raise ValueError("not a chart of this package")
    names, rows = _legend(legend)
    head = MARGIN + ROW * rows
    wide, tall = svg.WIDTH + 2 * MARGIN, int(found[2]) + head + MARGIN
    ground = f'<rect x="{-MARGIN}" y="{-head}" width="{wide}" height="{tall}" fill="var(--panel)"/>'
    body = re.sub(r' data-(?:tip|series)="[^"]*"', "", names + chart[found.end() :])
    # Names may hold control characters, which XML knows no way to write.
    body = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", "�", body)
    # Cells of a heat map are there to be pointed at, and show nothing.
    body = re.sub(r'<rect [^>]*class="cell" */>', "", body)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{-MARGIN} {-head} {wide} {tall}" width="{SHOWN_WIDTH}" '
        f'height="{round(SHOWN_WIDTH * tall / wide)}" role="img" aria-label="{found[3]}"><style>{_style()}</style>'
        f"{ground}{body}\n"
    )


def _legend(series: Sequence[tuple[str, int]]) -> tuple[str, int]:
    """Marks with their names in rows above the chart, and how many rows those are."""
    placed: list[tuple[int, int, str, int]] = []
    row, at = 0, 0
    for name, color in series:
        room = 26 + LETTER * columns(name)
        if at and at + room > svg.WIDTH:
            row, at = row + 1, 0
        placed.append((row, at, name, color))
        at += room
    rows = row + 1 if series else 0
    parts = [
        svg.marker(at + 8, ROW * (row - rows) + 8, color, name)
        + svg.text(at + 17, ROW * (row - rows) + 12, name, "start", "row")
        for row, at, name, color in placed
    ]
    return "".join(parts), rows


@cache
def _style() -> str:
    """The colours of both themes and the rules for charts, from the page's own style sheets."""
    assets = files("rlmerge.report") / "assets"
    page, charts = ((assets / name).read_text(encoding="utf-8") for name in ("page.css", "charts.css"))
    themes = re.match(r"(:root \{.*?\n\}\n)(@media screen and [^{]*\{.*?\n\}\n)", page, re.DOTALL)
    assert themes is not None, "page.css begins with both themes"
    lines = (page + charts).splitlines()
    rules = [line for line in lines if re.match(r"(svg |\.[sh]\d)", line) and ":hover" not in line]
    return themes[1] + themes[2].replace("screen and ", "") + "\n".join(rules)
