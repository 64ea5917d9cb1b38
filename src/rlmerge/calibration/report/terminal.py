"""A calibration in a terminal: coefficients, and how far the merge is from each expert."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlmerge.calibration.results import STAGES
from rlmerge.report.console import MARKS, Column, duration_text, fitted, render, size_text, warning_lines
from rlmerge.text import plain

from .words import Result, coefficient_rows, divergence_rows, headline, judgement

if TYPE_CHECKING:
    from rich.console import RenderableType


def calibration_text(result: Result, *, width: int, color: bool) -> str:
    """The result of ``rlmerge calibrate`` (its JSON's keys) in at most ``width`` columns, 60 or more."""
    from rich.text import Text

    level, text = judgement(result)
    mark, style = MARKS[level]
    parts: list[RenderableType] = [
        Text(plain(headline(result)), style="bold"),
        Text.assemble((f"{mark} ", style), plain(text)),
        "",
        Text(f"Coefficients ({result['parameter']})", style="bold cyan"),
        _coefficients(result, width),
        "",
        Text("KL(expert || merged), nats a token", style="bold cyan"),
        _divergences(result, width),
        "",
        *warning_lines(map(plain, result["warnings"])),
        plain(f"{len(result['history'])} evaluations from '{STAGES[result['start']]}', ")
        + f"{duration_text(result['seconds'])}, peak memory {size_text(result['peak_memory'])}",
        plain(f"held on {result['held']}"),
        Text.assemble(("recipe: ", "bold"), plain(str(result["out"]))),
    ]
    return render(parts, width, color)


def _coefficients(result: Result, width: int) -> RenderableType:
    rows = list(coefficient_rows(result))
    columns = [Column("tensors", [plain(label) for label, _ in rows], left=True)]
    columns += [Column(plain(name), [cells[k] for _, cells in rows]) for k, name in enumerate(result["rows"])]
    return fitted(columns, width)[0]


def _divergences(result: Result, width: int) -> RenderableType:
    rows = list(divergence_rows(result))
    columns = [
        Column("from", [plain(name) for name, _, _ in rows], left=True),
        Column("prompts", [prompts for _, prompts, _ in rows], left=True),
    ]
    ranks = {"base": 2, "shared": 1, "ones": 1}
    columns += [
        Column(title, [cells[k] for _, _, cells in rows], rank=ranks.get(stage, 0))
        for k, (stage, title) in enumerate(STAGES.items())
    ]
    return fitted(columns, width)[0]
