"""rlmerge beside mergekit 0.1.5: the same recipes and models, run in turn, then compared entry by entry.

    python bench/peers.py --parameters 500M --repeats 3

mergekit is installed into .bench/mergekit-venv on first use and only ever run as a program. Both start from files in
the page cache. The timed recipes say `dtype: bfloat16`, as is usual with mergekit; outputs are compared on recipes that
say `dtype: float32`, where mergekit computes in the precision rlmerge always uses.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from _agree import Agreement, changed_share, compare, threshold_ties
from _measure import (
    RLMERGE,
    SCRATCH,
    Measurement,
    common_arguments,
    environment,
    measure,
    median,
    report,
    table,
    workspace,
)
from generate import add_arguments, generate, llama, spec_of

VENV = SCRATCH / "mergekit-venv"
PINS = ("torch==2.13.0", "mergekit==0.1.5")


@dataclass(frozen=True)
class Method:
    """A merge method as both programs' recipes spell it; ``experts`` caps how many it takes.

    ``is_random``: outputs agree in how much they change, not entry by entry; so do ``arbitrary`` ones, which keep one
    part or another of many equal magnitudes. ``compat`` asks rlmerge for mergekit's absolute floors.
    """

    weight: float | None = None
    parameters: dict[str, float] = field(default_factory=dict)
    has_base: bool = True
    experts: int | None = None
    is_random: bool = False
    arbitrary: bool = False
    compat: bool = False

    def recipe(self, name: str, base: Path, experts: Sequence[Path], dtype: str) -> str:
        weight = {} if self.weight is None else {"parameters": {"weight": self.weight}}
        models = [{"model": str(path), **weight} for path in experts[: self.experts]]
        recipe: dict[str, object] = {"merge_method": name, "models": models, "dtype": dtype, "out_dtype": "bfloat16"}
        if self.compat:
            recipe["compat"] = "mergekit"  # which mergekit itself ignores
        if self.has_base:
            recipe["base_model"] = str(base)
        if self.parameters:
            recipe["parameters"] = self.parameters
        return yaml.safe_dump(recipe, sort_keys=False)


METHODS = {
    "linear": Method(weight=1.0, has_base=False),
    "task_arithmetic": Method(weight=0.5),
    "ties": Method(weight=1.0, parameters={"density": 0.2}),
    "dare_ties": Method(weight=1.0, parameters={"density": 0.5}, is_random=True),
    "dare_linear": Method(weight=1.0, parameters={"density": 0.5}, is_random=True),
    "ram": Method(),
    "ramplus_tl": Method(parameters={"r": 0.1, "alpha": 0.2}),
    "slerp": Method(parameters={"t": 0.4}, experts=1),
    "nuslerp": Method(weight=0.5, experts=2),
    "della": Method(weight=1.0, parameters={"density": 0.5, "epsilon": 0.1}, is_random=True),
    "breadcrumbs": Method(weight=1.0, parameters={"density": 0.5, "gamma": 0.01}, arbitrary=True),
    "sce": Method(parameters={"select_topk": 0.5}, arbitrary=True, compat=True),
    "model_stock": Method(compat=True),
    "karcher": Method(has_base=False),
    "multislerp": Method(weight=1.0),
    "nearswap": Method(parameters={"t": 0.001}, experts=1),
    "arcee_fusion": Method(experts=1, arbitrary=True),
}
GOALS = {
    "linear": 9.0,
    "task_arithmetic": 8.0,
    "ram": 30.0,
    "dare_ties": 25.0,
    "ties": 40.0,
    "della": 40.0,
    "breadcrumbs": 25.0,
}
"""How many times less CPU than mergekit 0.1.5 we mean to take."""

TIMES = (
    *("method", "rlmerge CPU / wall s", "mergekit CPU / wall s", "rlmerge MB", "mergekit MB"),
    *("CPU", "wall", "MB", "CPU goal"),
)
AGREEMENT = ("method", "equal", "one step", "threshold ties", "further", "verdict")
TARGETED = ("linear", "task_arithmetic", "ties", "dare_ties", "ram")


def commands(recipe: Path, out: Path) -> dict[str, list[str]]:
    """The command line of each program for one recipe. rlmerge may not reuse statistics of an earlier run."""
    return {
        "rlmerge": [RLMERGE, "merge", str(recipe), "-o", str(out), "--no-cache", "--quiet"],
        "mergekit": [str(VENV / "bin" / "mergekit-yaml"), str(recipe), str(out), "--no-copy-tokenizer", "--quiet"],
    }


def install() -> str:
    """Create mergekit's environment if it is missing; returns the versions in it."""
    return environment(VENV, "mergekit-yaml", PINS, ("mergekit", "torch", "transformers"))


def time_all(names: Sequence[str], models: Sequence[Path], repeats: int, work: Path) -> Iterator[list[str]]:
    """Rows of the table of times, one method at a time."""
    base, *experts = models
    for name in names:
        recipe = work / "recipe.yaml"
        recipe.write_text(METHODS[name].recipe(name, base, experts, "bfloat16"))
        runs: dict[str, list[Measurement]] = {"rlmerge": [], "mergekit": []}
        for repeat in range(repeats):
            turn = list(commands(recipe, work / "out").items())
            for program, command in turn if repeat % 2 == 0 else turn[::-1]:
                os.sync()  # no run pays for the writes of the run before it
                runs[program].append(measure(command))
                shutil.rmtree(work / "out")
        ours, theirs = runs["rlmerge"], runs["mergekit"]
        yield [
            name,
            *(f"{median(runs, 'cpu'):.2f} / {median(runs, 'wall'):.2f}" for runs in (ours, theirs)),
            *(f"{median(ours, 'peak') / 1e6:.0f}", f"{median(theirs, 'peak') / 1e6:.0f}"),
            *(f"{median(theirs, field) / median(ours, field):.1f}×" for field in ("cpu", "wall", "peak")),
            _verdict(median(theirs, "cpu") / median(ours, "cpu"), GOALS.get(name)),
        ]


def _verdict(ratio: float, goal: float | None) -> str:
    return "–" if goal is None else f"{goal:.0f}×: {'met' if ratio >= goal else 'not met'}"


def agree_all(names: Sequence[str], models: Sequence[Path], work: Path) -> Iterator[list[str]]:
    """Rows of the table of agreement; random methods show the share of entries they change instead."""
    base, *experts = models
    for name in names:
        method = METHODS[name]
        recipe = work / "recipe.yaml"
        recipe.write_text(method.recipe(name, base, experts, "float32"))
        outs = {program: work / program for program in ("rlmerge", "mergekit")}
        for program, out in outs.items():
            measure(commands(recipe, out)[program])
        if method.is_random or method.arbitrary:
            shares = (f"{program} changes {changed_share(base, out):.4f}" for program, out in outs.items())
            yield [name, *("–",) * 4, "; ".join(shares)]
        else:
            density = method.parameters.get("density")
            excuse = threshold_ties(base, experts, density) if density else None
            found = compare(outs["rlmerge"], outs["mergekit"], excuse)
            yield [name, *_counts(found), "no entry further" if not found.wrong else "DISAGREE"]
        for out in outs.values():
            shutil.rmtree(out)


def _counts(found: Agreement) -> list[str]:
    return [f"{getattr(found, name):,}" for name in ("equal", "one_step", "excused", "wrong")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=TARGETED, metavar="NAME")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--times-only", action="store_true", help="do not compare outputs")
    common_arguments(parser)
    arguments = parser.parse_args()
    spec = spec_of(parser, arguments)
    if spec.dtype != "bfloat16":
        parser.error("outputs are compared in bfloat16 steps; leave --dtype bfloat16")
    peer = install()
    with workspace("peers", arguments.keep) as work:
        models = generate(work / "models", *llama(arguments.parameters), spec)
        times = table(TIMES, list(time_all(arguments.methods, models, arguments.repeats, work)))
        compared = "" if arguments.times_only else table(AGREEMENT, list(agree_all(arguments.methods, models, work)))
    body = (
        f"{spec.experts} experts, {arguments.parameters:,} parameters asked for; medians of {arguments.repeats}; MB of "
        f"anonymous memory at its peak; then mergekit / rlmerge.\n\n{times}"
    )
    if compared:
        body += f"\n\nEntries of the two outputs, mergekit computing in float32:\n\n{compared}"
    report("rlmerge and mergekit", body, arguments.record, peer)


if __name__ == "__main__":
    main()
