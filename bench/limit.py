"""A merge beside the least any merge can do: read every input once, write the output once, fsync.

    python bench/limit.py --parameters 500M

The limit copies the base to the output block by block and reads the same blocks of the experts, with one thread or one
per core, whichever is faster. Warm runs find the inputs in the page cache; before cold runs they are dropped from it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from _measure import RLMERGE, common_arguments, forget, measure, report, table, workspace
from generate import add_arguments, generate, llama, names_of, spec_of

BLOCK = 2**22
STATES = ("cold", "warm")
GOALS = {"cold": {"ties": 1.3}, "warm": {}}
"""How near the limit a command is meant to come: 1.15 cold and 2 warm but for these."""


def weights(model: Path) -> list[Path]:
    """The safetensors files of a model directory."""
    return sorted(model.glob("*.safetensors"))


def copy_once(models: Sequence[Path], out: Path, threads: int) -> tuple[float, float]:
    """Seconds and CPU seconds to read all weight files once and write the first model's to ``out``, fsync included."""
    out.mkdir()
    start, began = time.perf_counter(), time.process_time()
    for sources in zip(*map(weights, models), strict=True):
        size = sources[0].stat().st_size
        inputs = [os.open(source, os.O_RDONLY) for source in sources]
        target = os.open(out / sources[0].name, os.O_WRONLY | os.O_CREAT)
        os.posix_fallocate(target, 0, size)

        def move(first: int, inputs: Sequence[int] = inputs, target: int = target, size: int = size) -> None:
            buffer = bytearray(BLOCK)
            for begin in range(first * BLOCK, size, threads * BLOCK):
                for position, file in enumerate(inputs):
                    count = os.preadv(file, [buffer], begin)
                    if position == 0:
                        os.pwrite(target, memoryview(buffer)[:count], begin)

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(move, range(threads)))
        os.fsync(target)
        for file in (*inputs, target):
            os.close(file)
    seconds, cpu = time.perf_counter() - start, time.process_time() - began
    shutil.rmtree(out)
    return seconds, cpu


def merge(method: str, models: Sequence[Path], out: Path) -> tuple[float, float, float]:
    """Seconds of one ``rlmerge merge``: of the whole command, of the merge as it reports it, and of CPU."""
    base = [] if method == "linear" else ["--base", str(models[0])]
    inputs = [str(model) for model in (models if method == "linear" else models[1:])]
    command = [RLMERGE, "merge", "--method", method, *base, *inputs, "-o", str(out)]
    run = measure([*command, "--no-cache", "--quiet", "--format", "json"])
    shutil.rmtree(out)
    return run.wall, json.loads(run.output)["seconds"], run.cpu


def run_all(
    models: Sequence[Path], methods: Sequence[str], repeats: int, prepare: Callable[[], object], out: Path
) -> dict[str, list]:
    """The results of every job, run in turn ``repeats`` times so that all of them see the same machine."""
    jobs: dict[str, Callable[[], object]] = {
        f"copy, {threads} threads": partial(copy_once, models, out, threads)
        for threads in {1, len(os.sched_getaffinity(0))}
    }
    jobs |= {method: partial(merge, method, models, out) for method in methods}
    results: dict[str, list] = {job: [] for job in jobs}
    for _ in range(repeats):
        for job, run in jobs.items():
            prepare()
            results[job].append(run())
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    methods = ["linear", "task_arithmetic", "ram"]
    parser.add_argument("--methods", nargs="+", default=methods, metavar="NAME", help=f"default {' '.join(methods)}")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--states", nargs="+", default=STATES, choices=STATES, help="of the inputs before a run")
    parser.add_argument("--models", type=Path, metavar="DIR", help="directories generated before, instead of new ones")
    common_arguments(parser)
    arguments = parser.parse_args()
    spec = spec_of(parser, arguments)
    rows: list[list[str]] = []
    with workspace("limit", arguments.keep) as work:
        if arguments.models:
            models = [arguments.models / name for name in names_of(spec)]
        else:
            models = generate(work / "models", *llama(arguments.parameters), spec)
        files = [file for model in models for file in weights(model)]
        read = sum(file.stat().st_size for file in files)
        states: dict[str, Callable[[], object]] = {"cold": lambda: forget(files), "warm": os.sync}
        for state in arguments.states:
            times = run_all(models, arguments.methods, arguments.repeats, states[state], work / "out")
            copies = [list(zip(*times.pop(job), strict=True)) for job in list(times) if job.startswith("copy")]
            limit, floor = (min(statistics.median(copy[k]) for copy in copies) for k in range(2))
            for method, runs in times.items():
                command, inner, cpu = (statistics.median(seconds) for seconds in zip(*runs, strict=True))
                goal = GOALS[state].get(method, 1.15 if state == "cold" else 2.0)
                verdict = f"{goal:g}×: {'met' if command / limit <= goal else 'not met'}"
                ratios = [
                    f"{command / limit:.2f}×",
                    f"{inner / limit:.2f}×",
                    verdict,
                    f"{cpu:.2f}",
                    f"{floor / cpu:.0%}",
                ]
                rows.append([f"{method}, {state}", f"{limit:.2f}", f"{command:.2f}", f"{inner:.2f}", *ratios])
    header = ["merge", "limit s", "command s", "merge alone s", "command / limit", "merge alone / limit", "goal",
              "CPU s", "of it the limit's"]  # fmt: skip
    body = (
        f"{len(models)} models read, {read / 1e9:.2f} GB, one written; medians of {arguments.repeats}. "
        f'"Merge alone" leaves out the start of the interpreter. CPU is that of the command; the last column says '
        f"how much of it reading and writing alone take.\n\n{table(header, rows)}"
    )
    report("A merge beside reading and writing once", body, arguments.record)


if __name__ == "__main__":
    main()
