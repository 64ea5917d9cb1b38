"""Merge one matrix of a 70B model, three bfloat16 experts, with methods of the subspace family, at the lowest priority.

    python bench/subspace.py --memory 2GB

Writes 1.9 GB at 28672 × 8192, prints CPU seconds and the peak of anonymous memory beside what `rlmerge plan` says, and
removes everything.
"""

from __future__ import annotations

import argparse
import json
import shutil

from _measure import RLMERGE, common_arguments, measure, report, table, workspace
from generate import Spec, generate

CASES = ("task_arithmetic", "covariance rank=64", "covariance rank=16")
"""Methods, each with its parameters."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=28672)
    parser.add_argument("--columns", type=int, default=8192)
    parser.add_argument("--experts", type=int, default=3)
    parser.add_argument("--memory", default="2GB")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cases", nargs="+", default=CASES, metavar="'NAME KEY=VALUE ...'")
    common_arguments(parser)
    arguments = parser.parse_args()
    shapes = {"model.layers.0.mlp.up_proj.weight": (arguments.rows, arguments.columns)}
    config = {"model_type": "llama", "hidden_size": arguments.columns, "intermediate_size": arguments.rows}
    rows: list[list[str]] = []
    with workspace("subspace", arguments.keep) as work:
        models = [str(path) for path in generate(work / "models", shapes, config, Spec(experts=arguments.experts))]
        for case in arguments.cases:
            method, *parameters = case.split()
            request = ["--method", method, *(word for p in parameters for word in ("-p", p)), "--base", *models]
            request += ["-o", str(work / "out"), "--memory", arguments.memory, "--workers", str(arguments.workers)]
            request += ["--no-cache", "--format", "json"]
            planned = json.loads(measure([RLMERGE, "plan", *request]).output)
            run = measure(["nice", "-n", "19", RLMERGE, "merge", *request, "--quiet"])
            passes = 1 + len(planned["statistics"])
            peaks = f"{planned['peak_memory'] / 1e6:.0f}", f"{run.peak / 1e6:.0f}"
            rows.append([case, str(passes), f"{run.cpu:.1f}", f"{run.wall:.1f}", *peaks])
            shutil.rmtree(work / "out")
    header = ["method", "passes", "CPU s", "wall s", "planned peak MB", "measured peak MB"]
    body = (
        f"One {arguments.rows} × {arguments.columns} matrix in bfloat16, K = {arguments.experts}, budget "
        f"{arguments.memory}, {arguments.workers} workers, nice 19. The plan leaves out the interpreter (about 50 MB). "
        "Wall seconds are those of a machine that did other work."
        f"\n\n{table(header, rows)}"
    )
    report("The subspace family on a matrix of a 70B model", body, arguments.record)


if __name__ == "__main__":
    main()
