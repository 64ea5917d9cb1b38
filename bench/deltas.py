"""Sparse deltas beside the experts they stand for: bytes on disk, and the time to merge from each.

    python bench/deltas.py --parameters 67M

For each share of changed entries, experts are generated, extracted, and merged twice: from the full models and from
their deltas. Both must give the same bytes. Warm runs find the inputs in the page cache; before cold runs they are
dropped from it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from _measure import RLMERGE, common_arguments, forget, measure, report, table, workspace
from generate import add_arguments, generate, llama, spec_of


def weights(model: Path) -> list[Path]:
    """The safetensors files of a model or delta directory."""
    return sorted(model.glob("*.safetensors"))


def size(model: Path) -> int:
    """Bytes of these."""
    return sum(file.stat().st_size for file in weights(model))


def extract(base: Path, expert: Path, out: Path) -> tuple[Path, float, float]:
    """The delta's directory, the share of entries that changed, and the seconds it took."""
    command = [RLMERGE, "delta", "extract", "--base", str(base), str(expert), "-o", str(out)]
    run = measure([*command, "--quiet", "--format", "json"])
    found = json.loads(run.output)
    return out, found["changed"] / found["elements"], run.wall


def merge(method: str, base: Path, experts: Sequence[Path], out: Path) -> tuple[float, float, float, bytes]:
    """Wall seconds of the command, of the merge as it reports it, CPU seconds, and the merged bytes' digests."""
    command = [RLMERGE, "merge", "--method", method, "--base", str(base), *map(str, experts), "-o", str(out)]
    run = measure([*command, "--no-cache", "--quiet", "--format", "json"])
    tensors = json.loads((out / "MANIFEST.json").read_text())["tensors"]
    shutil.rmtree(out)
    return run.wall, json.loads(run.output)["seconds"], run.cpu, json.dumps(tensors).encode()


def compare(
    method: str, base: Path, sides: dict[str, Sequence[Path]], repeats: int, out: Path
) -> dict[tuple[str, str], tuple[float, float, float]]:
    """Medians of wall, merge and CPU seconds by state and side, run in turn so that all see the same machine."""
    files = [file for models in (*sides.values(), [base]) for model in models for file in weights(model)]
    states: dict[str, Callable[[], object]] = {"cold": lambda: forget(files), "warm": os.sync}
    runs: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    results: set[bytes] = set()
    for state, prepare in states.items():
        for _ in range(repeats):
            for side, experts in sides.items():
                prepare()
                *seconds, result = merge(method, base, experts, out)
                runs.setdefault((state, side), []).append((seconds[0], seconds[1], seconds[2]))
                results.add(result)
    if len(results) > 1:
        raise SystemExit("the merges from models and from deltas differ")
    medians = {key: [statistics.median(each) for each in zip(*found, strict=True)] for key, found in runs.items()}
    return {key: (wall, alone, cpu) for key, (wall, alone, cpu) in medians.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    shares = [0.3, 0.25, 0.15, 0.05, 0.01]
    parser.add_argument("--shares", nargs="+", type=float, default=shares, metavar="SHARE", help="of changed entries")
    parser.add_argument("--method", default="task_arithmetic", metavar="NAME")
    parser.add_argument("--repeats", type=int, default=3)
    common_arguments(parser)
    arguments = parser.parse_args()
    spec = spec_of(parser, arguments)
    sizes: list[list[str]] = []
    times: list[list[str]] = []
    with workspace("deltas", arguments.keep) as work:
        for share in arguments.shares:
            folder = work / f"{share}"
            base, *experts = generate(folder, *llama(arguments.parameters), replace(spec, changed=share))
            found = [extract(base, expert, folder / f"delta-{i}") for i, expert in enumerate(experts)]
            deltas = [delta for delta, _, _ in found]
            changed = statistics.mean(changed for _, changed, _ in found)
            dense, sparse = sum(map(size, experts)), sum(map(size, deltas))
            seconds = statistics.median(seconds for _, _, seconds in found)
            row = [f"{dense / 1e6:.1f}", f"{sparse / 1e6:.1f}", f"{sparse / dense:.1%}", f"{seconds:.2f}"]
            sizes.append([f"{changed:.1%}", *row])
            sides = {"models": experts, "deltas": deltas}
            result = compare(arguments.method, base, sides, arguments.repeats, folder / "out")
            for state in ("cold", "warm"):
                (a, b, c), (x, y, z) = (result[state, side] for side in sides)
                cells = [f"{b:.2f}", f"{y:.2f}", f"{b / y:.2f}×", f"{a:.2f}", f"{x:.2f}", f"{c:.2f}", f"{z:.2f}"]
                times.append([f"{changed:.1%}, {state}", *cells])
            if not arguments.keep:
                shutil.rmtree(folder)
    size_table = table(["changed", "experts MB", "deltas MB", "share", "extract s"], sizes)
    head = ["changed", "models s", "deltas s", "faster", "command", "from deltas", "CPU s", "from deltas"]
    body = (
        f"{len(experts)} experts of {arguments.parameters:,} parameters, {spec.dtype}.\n\n{size_table}\n\n"
        f"Merges with {arguments.method}, medians of {arguments.repeats}; same bytes out. The first columns are the "
        f"merge alone, without the start of the interpreter.\n\n{table(head, times)}"
    )
    report("Sparse deltas beside full experts", body, arguments.record)


if __name__ == "__main__":
    main()
