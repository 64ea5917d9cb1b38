"""An inspection beside reading the files once: every elementwise figure of base + 3 experts, and the forecasts.

    python bench/inspection.py --parameters 250M

The limit reads every weight file block by block from the page cache into one small buffer a thread, with one thread or
one per core, whichever is faster: it moves bytes through the processor's cache and looks at none of them.
"Measuring" is the pass that gives all elementwise figures; the rest of the command is start-up, forecasts and verdict.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from _measure import RLMERGE, common_arguments, measure, median, report, table, workspace
from generate import add_arguments, generate, llama, spec_of

BLOCK = 2**22


def read_once(files: Sequence[Path], threads: int) -> float:
    """Seconds to read every file once into a small buffer."""

    def read(part: int) -> None:
        buffer = bytearray(BLOCK)
        for file in files:
            with file.open("rb", buffering=0) as handle:
                for begin in range(part * BLOCK, file.stat().st_size, threads * BLOCK):
                    os.preadv(handle.fileno(), [buffer], begin)

    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, range(threads)))
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--repeats", type=int, default=5)
    common_arguments(parser)
    arguments = parser.parse_args()
    spec = spec_of(parser, arguments)
    with workspace("inspection", arguments.keep) as work:
        models = generate(work / "models", *llama(arguments.parameters), spec)
        files = [file for model in models for file in sorted(model.glob("*.safetensors"))]
        size = sum(file.stat().st_size for file in files)
        cores = len(os.sched_getaffinity(0))
        limits: dict[int, list[float]] = {threads: [] for threads in {1, cores}}
        command = [RLMERGE, "inspect", "--base", *map(str, models), "--quiet", "--format", "json"]
        runs = []
        for _ in range(arguments.repeats):
            for threads, seconds in limits.items():
                seconds.append(read_once(files, threads))
            runs.append(measure(command))
    limit = min(statistics.median(seconds) for seconds in limits.values())
    measuring = statistics.median(json.loads(run.output)["measuring"] for run in runs)
    row = [
        f"{len(models) - 1} experts, {size / 1e9:.2f} GB",
        f"{limit:.2f}",
        f"{measuring:.2f}",
        f"{measuring / limit:.1f}×",
        f"{median(runs, 'wall'):.2f}",
        f"{median(runs, 'cpu'):.2f}",
        f"{median(runs, 'peak') / 2**20:.0f}",
    ]
    header = ["models", "reading s", "measuring s", "measuring / reading", "command s", "command CPU s", "peak MiB"]
    body = f"Warm; medians of {arguments.repeats}.\n\n{table(header, [row])}"
    report("An inspection beside reading once", body, arguments.record)


if __name__ == "__main__":
    main()
