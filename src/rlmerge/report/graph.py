"""The stages of a recipe file as a graph: a tree for the terminal, Mermaid for documents, SVG for a page.

A stage is a mapping with ``name``, ``method``, ``base`` (or None), ``experts``, ``bytes_written`` and ``peak_memory``;
models that are the names of earlier stages are edges between stages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from rlmerge.report.console import size_text
from rlmerge.text import plain, shortened

Stage = Mapping[str, Any]

_ROW, _BOX, _GAP = 56, 260, 70


def stage_tree(stages: Sequence[Stage]) -> str:
    """The last stage as the root of a tree; what is used twice is drawn once and named afterwards."""
    by_name = {stage["name"]: stage for stage in stages}
    drawn: set[str] = set()
    lines: list[str] = []

    def draw(model: str, role: str, indent: str, branch: str, below: str) -> None:
        stage = by_name.get(model)
        label = _title(stage) if stage else plain(model)
        again = " (see above)" if stage and model in drawn else ""
        lines.append(f"{indent}{branch}{role}{label}{again}")
        if stage is None or again:
            return
        drawn.add(model)
        children = _inputs(stage)
        for number, (kind, child) in enumerate(children, 1):
            last = number == len(children)
            draw(child, kind, indent + below, "└─ " if last else "├─ ", "   " if last else "│  ")

    draw(stages[-1]["name"], "", "", "", "")
    return "\n".join(lines)


def stage_mermaid(stages: Sequence[Stage]) -> str:
    """A Mermaid flowchart, models on the left and the result on the right."""
    numbers: dict[str, str] = {}
    lines = ["flowchart LR"]
    for stage in stages:
        for _, model in _inputs(stage):
            if model not in numbers:
                numbers[model] = f"n{len(numbers)}"
                lines.append(f'  {numbers[model]}["{_mermaid(model)}"]')
        numbers[stage["name"]] = f"n{len(numbers)}"
        lines.append(f'  {numbers[stage["name"]]}(["{_mermaid(_title(stage))}"])')
        lines += [
            f"  {numbers[model]} {'-.->|base|' if role else '-->'} {numbers[stage['name']]}"
            for role, model in _inputs(stage)
        ]
    return "\n".join(lines)


def stage_svg(stages: Sequence[Stage]) -> str:
    """An SVG document: each stage right of everything it reads, and each model once in the column before its reader."""
    depths: dict[str, int] = {}
    for stage in stages:
        depths[stage["name"]] = 1 + max((depths.get(model, 0) for _, model in _inputs(stage)), default=0)
    rows: dict[int, int] = {}
    places: dict[tuple[str, int], tuple[int, int]] = {}

    def place(name: str, depth: int) -> tuple[int, int]:
        if (name, depth) not in places:
            row = rows[depth] = rows.get(depth, -1) + 1
            places[name, depth] = (10 + depth * (_BOX + _GAP), 10 + row * _ROW)
        return places[name, depth]

    arrows: list[str] = []
    for stage in stages:
        depth = depths[stage["name"]]
        stop = place(stage["name"], depth)
        for role, model in _inputs(stage):
            arrows.append(_arrow(place(model, depths.get(model, depth - 1)), stop, bool(role)))
    titles = {stage["name"]: _title(stage) for stage in stages}
    boxes = [_box(*at, titles.get(name, name), name in titles) for (name, _), at in places.items()]
    width = 20 + (max(depths.values()) + 1) * (_BOX + _GAP) - _GAP
    height = 10 + (max(rows.values()) + 1) * _ROW
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12" role="img" aria-label="stages of the merge">'
    )
    return "\n".join([head, *arrows, *boxes, "</svg>"])


def _inputs(stage: Stage) -> list[tuple[str, str]]:
    """(what is written before it, model) of everything a stage reads, each model once."""
    base = [("base: ", stage["base"])] if stage["base"] else []
    return [*base, *(("", model) for model in dict.fromkeys(stage["experts"]) if model != stage["base"])]


def _title(stage: Stage) -> str:
    sizes = f"{size_text(stage['bytes_written'])}, peak {size_text(stage['peak_memory'])}"
    return f"{plain(stage['name'])} · {stage['method']} ({sizes})"


def _mermaid(content: str) -> str:
    return escape(plain(content), quote=True)


def _box(x: int, y: int, content: str, made: bool) -> str:
    shown = escape(shortened(content, 42))
    fill = "#e3edf9" if made else "#f4f4f2"
    return (
        f'<g><title>{escape(plain(content))}</title><rect x="{x}" y="{y}" width="{_BOX}" height="36" rx="6" '
        f'fill="{fill}" stroke="#8a8a85"/><text x="{x + 10}" y="{y + 22}" fill="#1b1b1a">{shown}</text></g>'
    )


def _arrow(start: tuple[int, int], stop: tuple[int, int], dashed: bool) -> str:
    (x1, y1), (x2, y2) = (start[0] + _BOX, start[1] + 18), (stop[0], stop[1] + 18)
    middle, style = (x1 + x2) // 2, ' stroke-dasharray="5 4"' if dashed else ""
    return (
        f'<path d="M{x1} {y1} C{middle} {y1} {middle} {y2} {x2 - 6} {y2}" fill="none" stroke="#8a8a85"{style}/>'
        f'<path d="M{x2 - 7} {y2 - 4} L{x2} {y2} L{x2 - 7} {y2 + 4} Z" fill="#8a8a85"/>'
    )
