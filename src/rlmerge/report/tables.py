"""HTML tables of a report; every figure stands beside its null, and every plot has one as its text alternative."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape

from rlmerge.report.axes import finite


def share(value: float | None) -> str:
    """``12.3 %``, or a dash for what is not known or not finite."""
    return f"{100 * value:.1f} %" if finite(value) else "–"


def number(value: float | None) -> str:
    """Three significant digits, or a dash for what is not known or not finite."""
    return f"{value:.3g}" if finite(value) else "–"


def amount(value: float | None, percent: bool = False) -> str:
    """A value as a share or with three significant digits, with a true minus sign; a dash for none."""
    return (share(value) if percent else number(value)).replace("-", "−")


def interval_text(value: float | None, low: float | None, high: float | None, percent: bool = False) -> str:
    """``0.512 [0.48, 0.54]``; without the brackets when no interval is known."""
    if not (finite(low) and finite(high)):
        return amount(value, percent)
    return f"{amount(value, percent)} [{amount(low, percent)}, {amount(high, percent)}]"


def table(caption: str, head: Sequence[str], body: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table whose first column heads its rows; cells are text."""
    columns = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in body
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption, quote=True)}">'
        f'<table class="{kind}"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{columns}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def matrix(
    title: str,
    note: str,
    names: Sequence[str],
    cell: Callable[[str, str], tuple[str, str, float] | None],
    columns: Sequence[str] | None = None,
) -> str:
    """A matrix as a coloured table: ``cell(row, column)`` gives value, small print, and a strength in [-1, 1].

    Without ``columns`` it is square over ``names``, and what stands on its diagonal is not asked for.
    """
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns or names)
    lines: list[str] = []
    for a in names:
        cells: list[str] = []
        for b in columns or names:
            same = columns is None and a == b
            found = None if same else cell(a, b)
            if found is None:
                cells.append("<td>·</td>" if same else "<td>–</td>")
                continue
            value, small, strength = found
            tone = "--tone: var(--cool); " if strength < 0 else ""
            weight = min(1.0, abs(strength)) * 0.6
            cells.append(
                f'<td style="{tone}--weight: {weight:.2f}"{" class=strong" if weight > 0.3 else ""}>'
                f"{escape(value)}<small>{escape(small)}</small></td>"
            )
        lines.append(f'<tr><th scope="row">{escape(a)}</th>{"".join(cells)}</tr>')
    return (
        f'<figure><h3>{escape(title)}</h3><div class="scroll" tabindex="0" role="region" '
        f'aria-label="{escape(title, quote=True)}"><table class="matrix"><caption>{escape(note)}</caption>'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div></figure>"
    )


def plot(title: str, note: str, svg: str, data: str) -> str:
    """A chart with a heading, a sentence on how to read it, and its numbers as a table."""
    return (
        f"<figure><h3>{escape(title)}</h3><figcaption>{escape(note)}</figcaption>{svg}"
        f"<details><summary>Show the numbers</summary>{data}</details></figure>"
    )
