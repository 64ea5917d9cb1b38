"""Kill merges with SIGKILL at random moments, hundreds of times, and resume them.

    python bench/kill.py --kills 300 --parameters 20M

Each merge is killed and resumed until it ends. Its directory must then equal an undisturbed one byte for byte, and
no directory that differs may ever bear the final name. Prints where the kills hit; exits with 1 at the first
difference.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from generate import Spec, generate, llama, quantity

RLMERGE = [sys.executable, "-c", "from rlmerge.cli import main; main()"]
METHODS = {
    "dare_ties": ["--rounding", "stochastic", "-p", "density=0.5"],
    "ram_plus": [],
    "ties": ["-p", "density=0.2", "-p", "scope=global"],
}
"""Random numbers, statistics over the model, and thresholds over the model."""


def command(method: str, folder: Path, out: Path, experts: int) -> list[str]:
    """A merge of the models in ``folder`` that takes up whatever is there."""
    merge = [*RLMERGE, "merge", "--method", method, *METHODS[method], "--shard-size", "8MB"]
    models = ["--base", str(folder / "base"), *(str(folder / f"expert-{k}") for k in range(experts))]
    return [*merge, *models, "-o", str(out), "--resume", "--quiet"]


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def phase(out: Path) -> str:
    """How far a killed run had come, from what it left."""
    partial = out.with_name(f".{out.name}.partial")
    if out.exists():
        return "after the rename"
    if not partial.exists():
        return "before it wrote anything"
    if not (partial / "journal.jsonl").exists():
        return "while sealing, after the journal"
    names = {path.name for path in partial.iterdir()}
    return "while sealing" if "config.json" in names else "while merging"


def torment(method: str, folder: Path, kills: int, experts: int, moments: random.Random) -> Counter[str]:
    """``kills`` kills of merges by ``method``; where they hit."""
    undisturbed = folder / f"{method}-undisturbed"
    began = time.perf_counter()
    subprocess.run(command(method, folder, undisturbed, experts), check=True, stdout=subprocess.DEVNULL)
    duration = time.perf_counter() - began
    expected = content(undisturbed)
    hit: Counter[str] = Counter()
    out = folder / f"{method}-killed"
    while hit.total() < kills:
        with subprocess.Popen(command(method, folder, out, experts), stdout=subprocess.DEVNULL) as process:
            try:
                code = process.wait(moments.uniform(0, duration))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                hit[phase(out)] += 1
                code = 0
        if code:
            sys.exit(f"{method}: a resumed merge failed with exit code {code}; see {folder}")
        if out.exists():
            if content(out) != expected:
                sys.exit(f"{method}: {out} is not what {undisturbed} is")
            shutil.rmtree(out)
    return hit


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill merges at random moments and resume them.")
    parser.add_argument("--kills", type=int, default=300, help="over all methods (default 300)")
    parser.add_argument("--parameters", type=quantity, default="20M", help="of one model (default 20M)")
    parser.add_argument("--experts", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="rlmerge-kill-"))
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    shapes, config = llama(arguments.parameters)
    generate(folder, shapes, config, Spec(experts=arguments.experts))
    moments = random.Random(arguments.seed)
    for method in METHODS:
        hit = torment(method, folder, -(-arguments.kills // len(METHODS)), arguments.experts, moments)
        print(f"{method}: " + ", ".join(f"{count} {place}" for place, count in hit.most_common()), flush=True)
    print(f"every one of them resumed to the bytes of an undisturbed run (seed {arguments.seed})")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
