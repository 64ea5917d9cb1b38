"""The page every HTML report is: one self-contained file, both themes, any width, printable, keyboard and reader."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

from rlmerge.report import svg

Section = tuple[str, str, str]
"""Anchor, heading and content; a section without content is left out."""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def page(
    *,
    title: str,
    heading: str,
    summary: str,
    sections: Sequence[Section],
    footer: str,
    legend: str = "",
    legend_after: int = 0,
) -> str:
    """The whole file. ``legend`` stands before the section number ``legend_after`` and stays in view from there on."""
    shown = [section for section in sections if section[2]]
    links = "".join(f'<a href="#{key}">{escape(head)}</a>' for key, head, _ in shown)
    body = "".join(_section(*section) for section in shown[:legend_after]) + legend
    body += "".join(_section(*section) for section in shown[legend_after:])
    text = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_asset('page.css')}{_asset('charts.css')}</style></head><body>"
        f'<a class="skip" href="#{shown[0][0]}">Skip to: {escape(shown[0][1])}</a>'
        f"<header><h1>{escape(heading)}</h1><p class=soft>{escape(summary)}</p>"
        f'<nav aria-label="Sections">{links}</nav></header><main>{body}</main>'
        f"<footer>{escape(footer)}</footer>"
        '<div id="tip" aria-hidden="true"></div><div id="said" class="skip" aria-live="polite"></div>'
        f"<script>{_asset('page.js')}</script></body></html>\n"
    )
    # Names of files may hold bytes that are no text; a page is always UTF-8.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def legend(series: Iterable[tuple[str, int]], label: str) -> str:
    """Buttons that show or hide the series (name, colour) in every chart."""
    buttons = "".join(
        f'<button type="button" aria-pressed="true" data-toggle="{color}">'
        f'<svg viewBox="0 0 14 14" aria-hidden="true" class="s{color}">{svg.marker(7, 7, color, name)}</svg>'
        f"<span>{escape(name)}</span></button>"
        for name, color in series
    )
    return f'<div class="legend" role="group" aria-label="{escape(label, quote=True)}">{buttons}</div>'


def findings(items: Iterable[str]) -> str:
    """A list of findings, see :func:`finding`."""
    return f'<ul class="findings">{"".join(items)}</ul>'


def finding(level: str, title: str, text: str, more: str = "", *, label: str | None = None) -> str:
    """One finding: ``level`` is good, info, warning or problem, shown as ``label`` or by its own name.

    ``more`` is HTML that follows the text.
    """
    below = f"<p>{escape(text)}</p>" if text else ""
    return (
        f'<li class="{level}"><span class="level">{escape(label or level)}</span>'
        f"<strong>{escape(title)}</strong>{below}{more}</li>"
    )


def grid(content: str, kind: str = "grid") -> str:
    """Figures side by side where there is room; ``grid one`` keeps them in one column."""
    return f'<div class="{kind}">{content}</div>'


def panel(content: str) -> str:
    """A framed part of a page."""
    return f'<div class="panel">{content}</div>'


def capital(text: str) -> str:
    """``text`` with a capital first letter and the rest as it was."""
    return text[:1].upper() + text[1:]


def _section(key: str, head: str, content: str) -> str:
    title = f"{key}-title"
    return f'<section id="{key}" aria-labelledby="{title}"><h2 id="{title}">{escape(head)}</h2>{content}</section>'


def _asset(name: str) -> str:
    return (files("rlmerge.report") / "assets" / name).read_text(encoding="utf-8")
