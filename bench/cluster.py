"""Merges by Ray on this machine: workers and drivers killed at random moments, and the gain of a second worker.

    python bench/cluster.py --kills 50 --parameters 20M
    python bench/cluster.py --kills 0 --speedup 3 --method tsv --parameters 60M

Every run is one of ``rlmerge merge --executor ray``. Of ten kills nine are of a worker and one is of the driver; a
merge whose driver was killed is resumed. Whatever bears the final name must equal a merge without Ray byte for byte:
the first difference ends this with exit code 1. ``--speedup`` times merges with one and with two workers, and prints
the medians of so many repeats with the load of the machine. A worker that starts, and plans, takes a second or two.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from _measure import report, versions
from generate import Spec, generate, llama, quantity
from kill import RLMERGE, content

EXPERTS = 2


def command(folder: Path, out: Path, *more: str) -> list[str]:
    """A merge that takes up whatever is there."""
    models = ["--base", str(folder / "base"), *(str(folder / f"expert-{k}") for k in range(EXPERTS))]
    words = ["merge", "--method", "ties", "-p", "density=0.2", "--shard-size", "8MB", "--no-cache"]
    return [*RLMERGE, *words, *models, "-o", str(out), "--quiet", *more]


def workers(folder: Path) -> list[int]:
    """Processes of our cluster that merge a share now."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            is_ours = f"XDG_CACHE_HOME={folder}".encode() in (entry / "environ").read_bytes()
            if is_ours and (entry / "cmdline").read_bytes().startswith(b"ray::merge_share"):
                found.append(int(entry.name))
    return found


def torment(folder: Path, kills: int, moments: random.Random) -> Counter[str]:
    """Merge again and again until so many processes were killed; how many of each kind."""
    alone, out = folder / "alone", folder / "out"
    subprocess.run(command(folder, alone), check=True, stdout=subprocess.DEVNULL)
    expected = content(alone)
    hit: Counter[str] = Counter()
    merges = 0
    while hit.total() < kills:
        with subprocess.Popen(
            command(folder, out, "--executor", "ray", "--resume"), stdout=subprocess.DEVNULL
        ) as driver:
            was_killed = False
            while driver.poll() is None:
                time.sleep(moments.uniform(0.1, 1.0))
                running = workers(folder)
                if not running or hit.total() >= kills:
                    continue
                if moments.random() < 0.1:
                    driver.kill()
                    hit["driver"] += 1
                    was_killed = True
                    break
                with suppress(ProcessLookupError):
                    os.kill(moments.choice(running), signal.SIGKILL)
                    hit["worker"] += 1
        if driver.returncode and not was_killed:
            sys.exit(f"a merge failed with exit code {driver.returncode}; see {folder}")
        while was_killed and workers(folder):
            time.sleep(0.5)
        if out.exists():
            merges += 1
            if content(out) != expected:
                sys.exit(f"{out} is not what {alone} is")
            shutil.rmtree(out)
            print(f"{merges} merges, {dict(hit)}", flush=True)
    return hit


def speedup(folder: Path, method: str, repeats: int) -> str:
    """The times of one and of two workers from the finished plan on, the cluster being up."""
    script = (
        "import sys, time, ray, rlmerge\n"
        "from pathlib import Path\n"
        "from rlmerge.api import run_plan_on\n"
        "folder, count, method = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]\n"
        "ray.init(num_cpus=count, include_dashboard=False, log_to_driver=False)\n"
        "models = [{'model': str(folder / f'expert-{k}')} for k in range(2)]\n"
        "recipe = {'merge_method': method, 'base_model': str(folder / 'base'), 'models': models,\n"
        "          'parameters': {'density': 0.2} if method in ('ties', 'della') else {}}\n"
        "ray.get([ray.remote(lambda: time.sleep(1)).remote() for _ in range(count)])\n"
        "plan = rlmerge.plan(recipe, folder / 'out', shard_size='8MB', workers=1, cache=False, memory='4GB')\n"
        "began = time.perf_counter()\n"
        "run_plan_on('ray', plan, folder / 'out')\n"
        "print(time.perf_counter() - began)\n"
    )
    times: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(repeats):
        for count, found in times.items():
            shutil.rmtree(folder / "out", ignore_errors=True)
            words = [sys.executable, "-c", script, str(folder), str(count), method]
            done = subprocess.run(words, check=True, capture_output=True, text=True)
            found.append(float(done.stdout.splitlines()[-1]))
    one, two = (statistics.median(found) for found in times.values())
    ratio = f"{one / two:.2f} times; goal 1.7: {'met' if one / two >= 1.7 else 'not met'}"
    return (
        f"{method}, {EXPERTS} experts, a core each: 1 worker {one:.1f} s, 2 workers {two:.1f} s, {ratio}; medians of "
        f"{repeats}; load of the machine at the end {os.getloadavg()[0]:.1f}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="of workers and drivers (default 50)")
    parser.add_argument("--speedup", type=int, default=0, metavar="N", help="repeats of the timing (default none)")
    parser.add_argument("--parameters", type=quantity, default="20M", help="of one model (default 20M)")
    parser.add_argument("--method", default="ties", help="whose merges are timed (default ties)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", action="store_true", help="append the results to bench/RESULTS.md")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="rlmerge-cluster-"))
    os.environ |= {"XDG_CACHE_HOME": str(folder), "RAY_USAGE_STATS_ENABLED": "0"}
    shapes, config = llama(arguments.parameters)
    generate(folder, shapes, config, Spec(experts=EXPERTS))
    said: list[str] = []
    if arguments.kills:
        hit = torment(folder, arguments.kills, random.Random(arguments.seed))
        killed = ", ".join(f"{count} times a {kind}" for kind, count in hit.most_common())
        said.append(f"Killed {killed}; every output is that of an undisturbed run.")
    if arguments.speedup:
        said.append(speedup(folder, arguments.method, arguments.speedup))
    shutil.rmtree(folder)
    report("Merges by Ray", "\n\n".join(said), arguments.record, versions("ray"))


if __name__ == "__main__":
    main()
