"""Writes docs/methods.md from the methods' own data, so that the page cannot drift from the code.

python docs/generate.py            write the page
python docs/generate.py --check    exit 1 if the page on disk differs
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

from rlmerge.methods import Method, Parameter, get, names

PAGE = Path(__file__).with_name("methods.md")

HEAD = """# Methods

This page is written by `docs/generate.py` from the data that `rlmerge methods` shows.

Every method carries a status. **exact**: the formula was read in the paper's own text or reference code.
**second-hand**: it was taken from independent summaries that agree. **reconstruction**: the source fixes only the
outline; the rest is our reading, every open choice is a parameter, and no published number is comparable with it.

In the formulas `base` is θ₀ and `tau` holds the experts' task vectors τ_k = θ_k − θ₀; `xp` is the array library.
"""


def page() -> str:
    """The whole page."""
    methods = [get(name) for name in names()]
    table = ["| method | what it does | status |", "|---|---|---|"]
    table += [f"| [`{m.name}`](#{m.name}) | {m.summary} | {m.status} |" for m in methods]
    return "\n".join([HEAD, *table, "", *(section(m) for m in methods)])


def section(method: Method) -> str:
    """One method: source, parameters, notes and the formula as it runs."""
    parts = [f"## {method.name}", "", method.summary, "", f"Source: {method.paper}. Status: **{method.status}**."]
    if method.parameters:
        parts += ["", "| parameter | default | per | meaning |", "|---|---|---|---|"]
        parts += [_parameter(p) for p in method.parameters]
    if method.compat:
        changed = ", ".join(f"`{name}: {value}`" for name, value in method.compat.items())
        parts += ["", f"`compat: mergekit` sets {changed}."]
    if method.notes:
        parts += ["", *(f"- {note}" for note in method.notes)]
    parts += ["", "```python", inspect.getsource(method.formula).rstrip(), "```", ""]
    return "\n".join(parts)


def _parameter(parameter: Parameter) -> str:
    default = "required" if parameter.default is None else f"`{str(parameter.default).lower()}`"
    choices = f" One of {', '.join(f'`{c}`' for c in parameter.choices)}." if parameter.choices else ""
    return f"| `{parameter.name}` | {default} | {parameter.per} | {parameter.help}{choices} |".replace("|τ|", "\\|τ\\|")


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(PAGE.read_text() != page())
    PAGE.write_text(page())
