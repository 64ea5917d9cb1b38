"""The methods that look at inputs or subspaces: what a merge costs, and three of them beside FusionBench.

    python bench/family.py --parameters 500M --beside tsv

FusionBench is installed into .bench/fusion-bench-venv on first use and only ever run as a program. Both begin with
files in the page cache and write float32, so that outputs can be compared: the last column is the norm of the
difference of both merged changes by that of FusionBench's.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from _measure import (
    BENCH,
    RLMERGE,
    SCRATCH,
    Measurement,
    common_arguments,
    environment,
    measure,
    report,
    table,
    workspace,
)
from generate import add_arguments, generate, llama, spec_of

from rlmerge.checkpoint.model import open_checkpoint
from rlmerge.kernels.dtypes import decode

VENV = SCRATCH / "fusion-bench-venv"
PINS = ("torch==2.13.0", "fusion-bench==0.2.33")
METHODS = ("task_arithmetic", "tsv", "iso_c", "iso_cts", "swudi", "actmat", "ace", "covariance", "covariance rank=64")
"""Each with its parameters. `wudi`, hundreds of products with every matrix, is left to those who ask for it."""
SAME = {"tsv": {"lambda": 1}, "iso_c": {"lambda": 1}, "wudi": {"lambda": 1, "others": "average"}}
"""Methods of both programs, and the parameters with which ours computes what FusionBench's own configuration asks."""


def install() -> str:
    """Create FusionBench's environment if it is missing; returns the versions in it."""
    return environment(VENV, "fusion_bench", PINS, ("fusion-bench", "torch", "transformers"))


def ours(case: str, models: Sequence[Path], out: Path, memory: str, workers: int) -> Measurement:
    """A merge by rlmerge; ``case`` is a method with its parameters."""
    method, *parameters = case.split()
    request = ["--method", method, *(word for each in parameters for word in ("-p", each)), "--base", *map(str, models)]
    os.sync()
    flags = ["--memory", memory, "--workers", str(workers), "--out-dtype", "float32", "--no-cache", "--quiet"]
    return measure([RLMERGE, "merge", *request, "-o", str(out), *flags])


def theirs(method: str, models: Sequence[Path], out: Path) -> Measurement:
    """The same by FusionBench."""
    os.sync()
    script = str(BENCH / "_fusion_bench.py")
    return measure([str(VENV / "bin" / "python"), script, method, *map(str, models), str(out)])


def apart(base: Path, left: Path, right: Path) -> float:
    """‖left − right‖ / ‖right − base‖ over all tensors that both hold."""
    start, one, two = (open_checkpoint(path).tensors for path in (base, left, right))
    difference = size = 0.0
    for name in one.keys() & two.keys():
        values = [decode(each[name].read(), each[name].dtype).astype(np.float64) for each in (start, one, two)]
        difference += float(np.square(values[1] - values[2]).sum())
        size += float(np.square(values[2] - values[0]).sum())
    return (difference / size) ** 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--cases", nargs="*", default=METHODS, metavar="'NAME KEY=VALUE ...'")
    parser.add_argument("--beside", nargs="*", choices=SAME, default=("tsv",), metavar="NAME")
    parser.add_argument("--memory", default="16GB", help="embeddings merge whole, as all matrices do")
    parser.add_argument("--workers", type=int, default=2)
    common_arguments(parser)
    arguments = parser.parse_args()
    spec = spec_of(parser, arguments)
    peer = install() if arguments.beside else ""
    rows: list[list[str]] = []
    with workspace("family", arguments.keep) as work:
        models = generate(work / "models", *llama(arguments.parameters), spec)
        for case in arguments.cases:
            one = ours(case, models, work / "ours", arguments.memory, arguments.workers)
            rows.append(_said([case, *_cells(one), "", ""]))
            shutil.rmtree(work / "ours")
        for method in arguments.beside:
            case = " ".join([method, *(f"{key}={value}" for key, value in SAME[method].items())])
            one = ours(case, models, work / "ours", arguments.memory, arguments.workers)
            print(f"{case}: {', '.join(_cells(one))}", flush=True)
            two = theirs(method, models, work / "theirs")
            far = f"{apart(models[0], work / 'ours', work / 'theirs'):.1e}"
            rows.append(_said([f"{case}, again", *_cells(one), f"{two.cpu / one.cpu:.1f}×", far]))
            rows.append(_said([f"{method}, FusionBench", *_cells(two), "", ""]))
            shutil.rmtree(work / "ours")
            shutil.rmtree(work / "theirs")
    header = ["merge", "CPU s", "wall s", "anonymous MB", "CPU, FusionBench / rlmerge", "apart"]
    body = (
        f"{spec.experts} experts, {arguments.parameters:,} parameters asked for, --memory {arguments.memory}, "
        f"{arguments.workers} workers; one run each.\n\n{table(header, rows)}"
    )
    report("The subspace family", body, arguments.record, peer)


def _said(row: list[str]) -> list[str]:
    """A row, printed as soon as it is known: merges of large models take minutes."""
    print(" | ".join(row), flush=True)
    return row


def _cells(run: Measurement) -> tuple[str, str, str]:
    return f"{run.cpu:.1f}", f"{run.wall:.1f}", f"{run.peak / 1e6:.0f}"


if __name__ == "__main__":
    main()
