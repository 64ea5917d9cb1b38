"""What the benchmarks share: measuring a command, describing the machine, tables, and the results file."""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

BENCH = Path(__file__).resolve().parent
SCRATCH = BENCH.parent / ".bench"
RESULTS = BENCH / "RESULTS.md"
RLMERGE = str(Path(sys.executable).parent / "rlmerge")


@dataclass(frozen=True)
class Measurement:
    """One run of a command: seconds, and the peak of its anonymous memory in bytes, over all its processes."""

    wall: float
    user: float
    system: float
    peak: int
    output: str

    @property
    def cpu(self) -> float:
        return self.user + self.system


def measure(command: Sequence[str], *, interval: float = 0.005) -> Measurement:
    """Run ``command`` to its end; SystemExit with its output when it fails.

    It runs with its own defaults, without any limit of threads (``OMP_NUM_THREADS`` …) from the environment, and may
    keep its compiled modules as every installed program does.
    CPU seconds are the kernel's account of the process and the children it waited for. Anonymous memory is sampled
    every ``interval`` seconds from /proc, so a shorter peak can escape; file pages, which the kernel may drop, are not
    in it.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.endswith("_NUM_THREADS") and name != "PYTHONDONTWRITEBYTECODE"
        }
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=errors, env=environment)
        sampler = _Sampler(process.pid, interval)
        sampler.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        sampler.stop()
        output.seek(0)
        errors.seek(0)
        text = output.read().decode(errors="replace")
        if process.returncode:
            tail = (text + errors.read().decode(errors="replace"))[-3000:]
            raise SystemExit(f"{shlex.join(command)}\nexited with {process.returncode}:\n{tail}")
    return Measurement(wall, usage.ru_utime, usage.ru_stime, sampler.peak, text)


class _Sampler(threading.Thread):
    def __init__(self, pid: int, interval: float) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._pid, self._interval, self._done = pid, interval, threading.Event()

    def run(self) -> None:
        while not self._done.wait(self._interval):
            self.peak = max(self.peak, anonymous_memory(self._pid))

    def stop(self) -> None:
        self._done.set()
        self.join()


def anonymous_memory(pid: int) -> int:
    """Anonymous bytes, resident or swapped out, of a process and its descendants; 0 once it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [child for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return 0
    own = sum(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(("RssAnon:", "VmSwap:")))
    return own + sum(anonymous_memory(int(child)) for child in children)


@contextmanager
def workspace(name: str, keep: bool) -> Generator[Path, None, None]:
    """An empty directory ``.bench/NAME`` for generated models, removed afterwards unless ``keep``."""
    path = SCRATCH / name
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        if not keep:
            shutil.rmtree(path, ignore_errors=True)


def forget(paths: Sequence[Path]) -> None:
    """Drop these files, and nothing else, from the page cache: programs and libraries stay warm."""
    os.sync()  # dirty pages cannot be dropped
    for path in paths:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def machine() -> str:
    """Processor, usable cores, memory, kernel and Python, in one line."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    model = names[0].split(":", 1)[1].strip() if names else platform.machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    return f"{model}, {cores} cores, {memory:.0f} GiB; Linux {platform.release()}; Python {platform.python_version()}"


def versions(*packages: str) -> str:
    """Installed versions of ``packages`` in this environment."""
    return ", ".join(f"{package} {metadata.version(package)}" for package in packages)


def environment(venv: Path, program: str, pins: Sequence[str], names: Sequence[str]) -> str:
    """Create the environment of another ``program`` of ``pins`` if it is missing; versions of ``names`` in it."""
    python = str(venv / "bin" / "python")
    if not (venv / "bin" / program).exists():
        print(f"Installing {' and '.join(pins)} into {venv} ...")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
        for pin in pins:
            subprocess.run([python, "-m", "pip", "install", "--quiet", pin], check=True)
    code = f"from importlib.metadata import version; print(', '.join(f'{{n}} {{version(n)}}' for n in {tuple(names)}))"
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns: the first to the left, the others to the right."""
    cells = [list(header), *map(list, rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        padded = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        return f"| {' | '.join([row[0].ljust(widths[0]), *padded[1:]])} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(header), line(rule), *map(line, cells[1:])])


def median(runs: Sequence[Measurement], field: str) -> float:
    """The median of one field or property over several runs."""
    return statistics.median(getattr(run, field) for run in runs)


def common_arguments(parser: argparse.ArgumentParser) -> None:
    """Options every benchmark has."""
    parser.add_argument("--keep", action="store_true", help="leave the generated data under .bench/")
    parser.add_argument("--record", action="store_true", help="append the results to bench/RESULTS.md")


def report(title: str, body: str, record: bool, others: str = "") -> None:
    """Print a block of results and, with ``record``, append it to the results file with date, machine and versions."""
    print(f"\n{body}\n")
    if not record:
        return
    command = shlex.join(["python", f"bench/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    software = versions("rlmerge", "numpy", "llvmlite") + (f", {others}" if others else "")
    facts = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC. {machine()}; {software}."
    head = "" if RESULTS.exists() else "# Benchmark results\n\nAppended by the scripts in bench/, newest last.\n"
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(f"{head}\n## {title}\n\n{facts}\n\n    {command}\n\n{body}\n")
    print(f"Recorded in {RESULTS}")
