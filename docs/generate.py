"""Writes docs/methods.md from the methods' own data, so that the page cannot drift from the code.

python docs/generate.py            write the page
python docs/generate.py --check    exit 1 if the page on disk differs
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

from rlmerge.methods import Method, Parameter, grouped

PAGE = Path(__file__).with_name("methods.md")

HEAD = """# Methods

This page is written by `docs/generate.py` from the data that `rlmerge methods` shows.

Every method carries a status. **exact**: the formula was read in the paper's own text or reference code.
**second-hand**: it was taken from independent summaries that agree. **reconstruction**: the source fixes only the
outline; the rest is our reading, every open choice is a parameter, and no published number is comparable with it.
**own**: it is this program's.

In the formulas `base` is θ₀ and `tau` holds the experts' task vectors τ_k = θ_k − θ₀; `xp` is the array library.

Names differ between programs. `scf_rkl` is SCF-RKL; a fork of mergekit has `scf` for another method, Selective
Coherence Fusion. The authors of RAM write r = 1.2 in their README, which `ram_plus` follows (a factor of 1 + 0.2·ρ),
while the default of their command line is 1.05.

Methods on whole matrices add and multiply in an order that no BLAS decides, so their merges are equal byte for byte on
every machine. Where eigenvectors by LAPACK take part, which a method's notes say, they are equal to about 1e-13 of the
largest change before they are rounded to the output type.
"""


def page() -> str:
    """The whole page."""
    table: list[str] = []
    for words, group in grouped().items():
        table += [f"Looking at {words}:", "", "| method | what it does | status |", "|---|---|---|"]
        table += [*(f"| [`{m.name}`](#{m.name}) | {m.summary} | {m.status} |" for m in group), ""]
    return "\n".join([HEAD, *table, *(section(m) for group in grouped().values() for m in group)])


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
