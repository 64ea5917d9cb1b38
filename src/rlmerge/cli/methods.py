"""`rlmerge methods`: what each method computes, from the methods' own data."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from rlmerge.cli.output import color, emit, emit_json, width
from rlmerge.cli.request import FORMAT

if TYPE_CHECKING:
    from rich.console import RenderableType

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


def methods_text(sheet: Mapping[str, Any], *, width: int, color: bool) -> str:
    """All methods, a line each, under what they look at."""
    from rlmerge.report.console import render, table

    made = table("method", "status", "summary", rules=False)
    group = ""
    for method in sheet["methods"]:
        if method["looks_at"] != group:
            group = method["looks_at"]
            made.add_row("", "", "")
            made.add_row("", "", f"looking at {group}:")
        made.add_row(method["name"], method["status"], method["summary"])
    return render([made, "`rlmerge methods NAME` shows formula and parameters."], width, color, apart=True)


def method_text(sheet: Mapping[str, Any], *, width: int, color: bool) -> str:
    """One method: what it is, its parameters, notes, variants, and the formula as it runs."""
    from rlmerge.report.console import render, table

    experts = sheet["experts"]
    most = "" if experts["max"] == experts["min"] else f" to {experts['max']}" if experts["max"] else " or more"
    head = (
        f"{sheet['name']} ({sheet['status']}): {sheet['summary']}\n"
        f"{sheet['paper']}\nbase {sheet['base']}; experts: {experts['min']}{most}"
    )
    parts: list[RenderableType] = [head]
    if sheet["parameters"]:
        made = table("parameter", "default", "values", "per", "meaning", rules=False)
        for parameter in sheet["parameters"]:
            made.add_row(
                parameter["name"], _default(parameter), _bounds(parameter), parameter["per"], parameter["help"]
            )
        parts.append(made)
    parts += ["\n".join(f"- {note}" for note in sheet["notes"])] if sheet["notes"] else []
    if sheet["variants"]:
        lines = (f"- {other['name']}: {other['summary']}" for other in sheet["variants"])
        parts.append("\n".join(["Variants of the same formula:", *lines]))
    if sheet["formula"]:
        parts.append(sheet["formula"].rstrip())
    return render(parts, width, color, apart=True)


def _default(parameter: Mapping[str, Any]) -> str:
    text = _value(parameter["default"])
    return text if parameter["mergekit"] is None else f"{text} (compat: {_value(parameter['mergekit'])})"


def _value(value: object) -> str:
    if value is None:
        return "required"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _bounds(parameter: Mapping[str, Any]) -> str:
    if parameter["choices"]:
        return ", ".join(parameter["choices"])
    if isinstance(parameter["default"], bool):
        return "true, false"
    low, high = parameter["low"], parameter["high"]
    if low is None and high is None:
        return "any number"
    if low is None:
        return f"up to {high:g}"
    above = f"above {low:g}" if parameter["open_low"] else f"{low:g}"
    if high is None:
        return above if parameter["open_low"] else f"at least {low:g}"
    return f"{above} to {high:g}"
