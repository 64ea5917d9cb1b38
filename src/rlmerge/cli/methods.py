"""`rlmerge methods`: what each method computes, from the methods' own data."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import click

from rlmerge.cli.output import color, emit, emit_json, width
from rlmerge.cli.request import FORMAT

if TYPE_CHECKING:
    from rlmerge.methods import Method


@click.command()
@click.argument("name", required=False)
@FORMAT
def command(name: str | None, output_format: str) -> None:
    """List the merge methods by what they look at, or show one with its formula.

    Every method carries a status: exact (formula read in the paper or its code), second-hand (from written
    summaries that agree), reconstruction (the source fixes only the outline), or own (of this program).
    """
    from rlmerge import methods
    from rlmerge.report.terminal import method_text, methods_text

    if name is None:
        found = methods.grouped()
        sheet: dict[str, Any] = {"methods": [_row(method) for group in found.values() for method in group]}
    else:
        sheet = _sheet(methods.get(name), [methods.get(each) for each in methods.names()])
    if output_format == "json":
        emit_json(sheet)
    else:
        show = methods_text if name is None else method_text
        emit(show(sheet, width=width(), color=color()))


def _row(method: Method) -> dict[str, Any]:
    from rlmerge.methods import SUBJECTS

    subject = SUBJECTS[method.looks_at]
    return {"name": method.name, "status": method.status, "looks_at": subject, "summary": method.summary}


def _sheet(method: Method, known: list[Method]) -> dict[str, Any]:
    """Everything there is to know about one method, as plain data."""
    return {
        **_row(method),
        "paper": method.paper,
        "base": method.base,
        "experts": {"min": method.min_experts, "max": method.max_experts},
        "parameters": [
            {
                "name": p.name,
                "default": p.default,
                "per": p.per,
                "choices": list(p.choices),
                "low": p.low,
                "high": p.high,
                "open_low": p.open_low,
                "help": p.help,
                "mergekit": method.compat.get(p.name),
            }
            for p in method.parameters
        ],
        "same_bits_everywhere": method.bitwise,
        "notes": list(method.notes),
        "variants": [_row(other) for other in known if other.formula is method.formula and other.name != method.name],
        "formula": _source(method),
    }


def _source(method: Method) -> str | None:
    """The formula as written; None where Python no longer has it (a notebook cell, a built-in)."""
    try:
        return inspect.getsource(method.formula)
    except (OSError, TypeError):
        return None
