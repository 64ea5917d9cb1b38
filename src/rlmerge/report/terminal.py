"""Results as text for a terminal. Plain data in, text out: the same keys that `--format json` prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

Result = Mapping[str, Any]


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


def merge_text(result: Result, *, width: int, color: bool) -> str:
    """What a merge did: per expert what survived and at which coefficient, then cost and warnings."""
    parts: list[RenderableType] = [f"{result['method']} ({result['status']}) → {result['out']}"]
    if result["experts"]:
        parts.append(_survival(result["experts"]))
    if result["details"]:
        parts.append(_details(result["details"]))
    return _render([*parts, _cost(result), *_warnings(result)], width, color)


def _survival(experts: Sequence[Result]) -> Table:
    """Per expert: entries changed, by no other, still changed in the output, taken back by rounding, and the factor."""
    table = _table("expert", ">changed", ">unique", ">survived", ">erased", ">coefficient")
    for expert in experts:
        table.add_row(
            expert["name"],
            f"{expert['changed']:,}",
            f"{expert['unique']:,}",
            _share(expert["survived"], expert["changed"]),
            _share(expert["erased"], expert["changed"]),
            f"{_coefficient(expert['requested'])} → {_coefficient(expert['realised'])}",
        )
    return table


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _details(details: Sequence[Result]) -> Table:
    """What the method measured of its own work: over the model, and the range over its tensors."""
    table = _table("measured by the method", ">model", ">tensors from", ">to")
    for detail in details:
        low, high = detail["range"] or (None, None)
        table.add_row(detail["label"], _ratio(detail["value"]), _ratio(low), _ratio(high))
    return table


def _cost(result: Result) -> str:
    seconds, read, written = result["seconds"], result["bytes_read"], result["bytes_written"]
    resumed = f" ({result['resumed']} from before)" if result["resumed"] else ""
    rate = f" ({size_text(round((read + written) / seconds))}/s)" if seconds > 0 else ""
    peak = "" if result["peak_memory"] is None else f", peak memory {size_text(result['peak_memory'])}"
    return (
        f"{result['tensors']} tensors{resumed}, {size_text(read)} read, {size_text(written)} written "
        f"in {duration_text(seconds)}{rate}{peak}"
    )


def plan_text(plan: Result, *, width: int, color: bool) -> str:
    """What a merge would do and need."""
    table = _table()
    for label, value in (
        ("method", f"{plan['method']} ({plan['status']})"),
        ("base", str(plan["base"] or "none")),
        ("experts", "\n".join(str(expert) for expert in plan["experts"])),
        *((name, "\n".join(directories)) for name, directories in plan["inputs"].items()),
        ("output", str(plan["out"] or "not given")),
        ("tensors", f"{plan['tensors']:,} ({plan['merged_tensors']:,} merged) in {len(plan['shards'])} shard(s)"),
        ("element types", ", ".join(plan["dtypes"])),
        ("passes over the inputs", _passes(plan["statistics"])),
        ("to read", size_text(plan["bytes_read"])),
        ("to write", size_text(plan["bytes_written"])),
        ("peak memory", size_text(plan["peak_memory"])),
        ("free disk", "unknown" if plan["free_disk"] is None else size_text(plan["free_disk"])),
    ):
        table.add_row(label, value)
    return _render([table, *_warnings(plan)], width, color)


def _passes(stages: Sequence[Sequence[str]]) -> str:
    """The merge itself, and one pass before it for each stage of statistics."""
    gathered = ", then ".join(" and ".join(stage) for stage in stages)
    return f"{1 + len(stages)} (for {gathered}, then the merge)" if stages else "1"


def verify_text(result: Result, *, width: int, color: bool) -> str:
    """Whether a directory is what its manifest says, and where it is not."""
    counted = f"{result['files']} files, {result['tensors']} tensors, {size_text(result['bytes'])}"
    if result["ok"]:
        return _render([f"{result['out']}: ok ({counted})"], width, color)
    head = f"{result['out']}: {len(result['problems'])} problem(s) in {counted}"
    return _render([head, *(f"- {problem}" for problem in result["problems"])], width, color)


def methods_text(sheet: Result, *, width: int, color: bool) -> str:
    """All methods, a line each, under what they look at."""
    table = _table("method", "status", "summary")
    group = ""
    for method in sheet["methods"]:
        if method["looks_at"] != group:
            group = method["looks_at"]
            table.add_row("", "", "")
            table.add_row("", "", f"looking at {group}:")
        table.add_row(method["name"], method["status"], method["summary"])
    return _render([table, "`rlmerge methods NAME` shows formula and parameters."], width, color)


def method_text(sheet: Result, *, width: int, color: bool) -> str:
    """One method: what it is, its parameters, notes, variants, and the formula as it runs."""
    experts = sheet["experts"]
    most = "" if experts["max"] == experts["min"] else f" to {experts['max']}" if experts["max"] else " or more"
    head = (
        f"{sheet['name']} ({sheet['status']}): {sheet['summary']}\n"
        f"{sheet['paper']}\nbase {sheet['base']}; experts: {experts['min']}{most}"
    )
    parts: list[RenderableType] = [head]
    if sheet["parameters"]:
        table = _table("parameter", "default", "values", "per", "meaning")
        for parameter in sheet["parameters"]:
            table.add_row(
                parameter["name"], _default(parameter), _bounds(parameter), parameter["per"], parameter["help"]
            )
        parts.append(table)
    parts += ["\n".join(f"- {note}" for note in sheet["notes"])] if sheet["notes"] else []
    if sheet["variants"]:
        lines = (f"- {other['name']}: {other['summary']}" for other in sheet["variants"])
        parts.append("\n".join(["Variants of the same formula:", *lines]))
    if sheet["formula"]:
        parts.append(sheet["formula"].rstrip())
    return _render(parts, width, color)


def _default(parameter: Result) -> str:
    text = _value(parameter["default"])
    return text if parameter["mergekit"] is None else f"{text} (compat: {_value(parameter['mergekit'])})"


def _value(value: object) -> str:
    if value is None:
        return "required"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _bounds(parameter: Result) -> str:
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


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _coefficient(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _warnings(result: Result) -> Iterable[RenderableType]:
    from rich.text import Text

    for warning in result["warnings"]:
        yield Text.assemble(("warning: ", "bold yellow"), str(warning))


def _table(*columns: str) -> Table:
    """A table without rules; a column named with ``>`` is aligned right."""
    from rich.table import Table

    table = Table(box=None, show_header=bool(columns), pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        justify = "right" if column.startswith(">") else "left"
        table.add_column(column.removeprefix(">"), justify=justify, overflow="fold")
    return table


def _render(parts: Iterable[RenderableType], width: int, color: bool) -> str:
    """The parts, a blank line between, without trailing blanks; strings are printed as they are, never as markup."""
    from rich.console import Console
    from rich.text import Text

    stream = StringIO()
    console = Console(
        file=stream,
        width=max(width, 40),
        force_terminal=color,
        no_color=not color,
        highlight=False,
        markup=False,
        emoji=False,
    )
    for index, part in enumerate(parts):
        if index:
            console.print()
        console.print(Text(part) if isinstance(part, str) else part, soft_wrap=isinstance(part, str))
    return "\n".join(line.rstrip() for line in stream.getvalue().rstrip().splitlines())
