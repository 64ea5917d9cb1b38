"""How far rlmerge's numbers are from mergekit's, method by method, in the types that people merge in.

    python bench/differences.py --parameters 5M

Each recipe runs as it is in rlmerge, and in mergekit 0.1.5 with `dtype: float32` and with the `dtype: bfloat16` that
most recipes say; all outputs are stored in bfloat16 and compared entry by entry. mergekit is installed as peers.py
does. docs/from-mergekit.md shows the table that this prints.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from _agree import Agreement, changed_share, compare, threshold_ties
from _measure import common_arguments, measure, report, table, workspace
from generate import add_arguments, generate, llama, spec_of
from peers import METHODS, Method, commands, install

HEADINGS = (
    *("method", "equal to float32", "one step", "ties", "further"),
    *("equal to bfloat16", "one step or ties", "further"),
)


def methods() -> Iterator[tuple[str, str, Method]]:
    """A label, a name and a recipe: with mergekit's floors where they matter, and without."""
    for name, method in METHODS.items():
        yield name, name, replace(method, compat=False)
        if method.compat or method.is_random:
            yield f"{name}, compat: mergekit", name, replace(method, compat=True)


def rows(models: Sequence[Path], work: Path) -> Iterator[list[str]]:
    """Rows of the table; methods that draw lots show which share of entries they change."""
    base, *experts = models
    recipe, ours, theirs = work / "recipe.yaml", work / "rlmerge", work / "mergekit"
    for label, name, method in methods():
        cells = [label]
        for dtype in ("float32", "bfloat16"):
            recipe.write_text(method.recipe(name, base, experts, dtype))
            for program, out in (("rlmerge", ours), ("mergekit", theirs)):
                measure(commands(recipe, out)[program])
            if method.is_random:
                mine, other = changed_share(base, ours), changed_share(base, theirs)
                cells += [f"changes {mine:.2%}", f"mergekit {other:.2%}", *(("", "") if dtype == "float32" else ("",))]
            else:
                density = method.parameters.get("density", method.parameters.get("select_topk"))
                excuse = threshold_ties(base, experts, density) if density else None
                cells += _shares(compare(ours, theirs, excuse), wide=dtype == "float32")
            for out in (ours, theirs):
                shutil.rmtree(out)
        yield cells


def _shares(found: Agreement, *, wide: bool) -> list[str]:
    total = found.equal + found.one_step + found.excused + found.wrong
    near = (found.one_step, found.excused) if wide else (found.one_step + found.excused,)
    return [_share(part, total) for part in (found.equal, *near, found.wrong)]


def _share(part: int, total: int) -> str:
    return "0" if not part else "100 %" if part == total else f"{100 * part / total:.3g} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    common_arguments(parser)
    arguments = parser.parse_args()
    spec = spec_of(parser, arguments)
    if spec.dtype != "bfloat16":
        parser.error("outputs are compared in bfloat16 steps; leave --dtype bfloat16")
    peer = install()
    with workspace("differences", arguments.keep) as work:
        models = generate(work / "models", *llama(arguments.parameters), spec)
        body = table(HEADINGS, list(rows(models, work)))
    about = f"{spec.experts} experts, {arguments.parameters:,} parameters asked for; shares of all entries."
    report("The arithmetic of rlmerge and mergekit", f"{about}\n\n{body}", arguments.record, peer)


if __name__ == "__main__":
    main()
