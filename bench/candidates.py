"""What the candidates of a search cost beside single merges: N recipes of the same models in one read.

    python bench/candidates.py --parameters 150M --candidates 32

Recipes are task_arithmetic, ties and dare_ties in turn, with coefficients and densities of their own. They are merged
into memory, as `rlmerge tune` does where it fits; a single merge is the command `rlmerge merge`, which also writes.
A second round of other recipes merges into the memory of the first, as a search does. System time of the first is that
of memory touched for the first time: much of it where a virtual machine gets it from its host.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from _measure import RLMERGE, common_arguments, measure, median, report, table, workspace
from generate import add_arguments, generate, llama, spec_of

METHODS = ("task_arithmetic", "ties", "dare_ties")


def recipe_of(models: list[str], number: int) -> dict[str, Any]:
    """A recipe that no other number gives."""
    method = METHODS[number % len(METHODS)]
    parameters = {"weight": 0.3 + 0.01 * number}
    if method != "task_arithmetic":
        parameters["density"] = 0.2 + 0.01 * number
    base, *experts = models
    return {
        "merge_method": method,
        "base_model": base,
        "models": [{"model": expert} for expert in experts],
        "parameters": parameters,
    }


def make(models: list[str], count: int, memory: int) -> None:
    """Merge ``count`` candidates into memory, and as many others after them, and print what each round took."""
    from rlmerge.merging.make import open_recipe
    from rlmerge.options import Options
    from rlmerge.progress import Quiet
    from rlmerge.recipe import load_recipe
    from rlmerge.search.candidates import Maker

    options = Options()
    opened = open_recipe(load_recipe(recipe_of(models, 0)), options)
    maker = Maker(opened, options, memory, Path("unused"), True, Quiet(), sampled=True)
    rounds: list[dict[str, float]] = []
    for first in (0, count):
        before = resource.getrusage(resource.RUSAGE_SELF)
        started, passes = time.perf_counter(), maker.passes
        made = maker.make({str(n): load_recipe(recipe_of(models, n)) for n in range(first, first + count)})
        assert all(not isinstance(each, Exception) for each in made.values())
        del made
        after = resource.getrusage(resource.RUSAGE_SELF)
        user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
        wall = time.perf_counter() - started
        rounds.append({"passes": maker.passes - passes, "user": user, "cpu": user + system, "wall": wall})
    print(json.dumps(rounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--candidates", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--inside", nargs="+", help=argparse.SUPPRESS)
    common_arguments(parser)
    arguments = parser.parse_args()
    if arguments.inside:
        make(arguments.inside, arguments.candidates, 2**40)
        return
    spec = spec_of(parser, arguments)
    with workspace("candidates", arguments.keep) as work:
        models = [str(model) for model in generate(work / "models", *llama(arguments.parameters), spec)]
        together = [sys.executable, __file__, "--candidates", str(arguments.candidates), "--inside", *models]
        single = {}
        for method in METHODS:
            extra = [] if method == "task_arithmetic" else ["-p", "density=0.4"]
            options = ["--no-cache", "--force", "--quiet", "-o", str(work / "out")]
            single[method] = [RLMERGE, "merge", "--method", method, "--base", *models, *extra, *options]
        runs: dict[str, list[Any]] = {name: [] for name in ("together", *METHODS)}
        for _ in range(arguments.repeats):
            runs["together"].append(measure(together))
            for method, command in single.items():
                runs[method].append(measure(command))
        cpu = {name: median(found, "cpu") for name, found in runs.items()}
        wall = {name: median(found, "wall") for name, found in runs.items()}
        mean = sum(cpu[method] for method in METHODS) / len(METHODS)
        user = {name: median(found, "user") for name, found in runs.items()}
        rows = [[method, f"{cpu[method]:.2f}", f"{user[method]:.2f}", f"{wall[method]:.2f}", ""] for method in METHODS]
        told = [json.loads(run.output) for run in runs["together"]]
        for number, title in enumerate(("first round", "second round")):
            found = {key: statistics.median(each[number][key] for each in told) for key in told[0][number]}
            name = f"{arguments.candidates} candidates, {found['passes']:.0f} reads, {title}"
            goal = f"{found['cpu'] / mean:.1f} (6: {'met' if found['cpu'] <= 6 * mean else 'not met'})"
            rows.append([name, *(f"{found[key]:.2f}" for key in ("cpu", "user", "wall")), goal])
        text = table(["merge", "CPU s", "of it user", "wall s", "single merges of CPU"], rows)
        report("The candidates of a search", f"3 experts, medians of {arguments.repeats}.\n\n{text}", arguments.record)


if __name__ == "__main__":
    main()
