"""Kill a writing process at every system call it makes, resume it, and compare the result with an undisturbed run.

    python kill_sweep.py FOLDER [direct]

A child is forked for each point. It counts its writes, fsyncs, renames and unlinks, and at the chosen one sends itself
SIGKILL: before the call, or after a write of half of the bytes. Prints the number of points; fails at the first
difference.
"""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np

from rlmerge.checkpoint import OutputTensor, PartialDirectory, output_file, plan_shards, syscalls
from rlmerge.kernels.dtypes import BY_NAME

DIRECT = sys.argv[2:] == ["direct"]
"""Whether shards go past the page cache, in requests of two pages of which each tensor takes several."""

TENSORS = [OutputTensor(name, BY_NAME["bfloat16"], (700 if DIRECT else 7, 5)) for name in ("a", "b", "c", "d", "e")]
SHARDS = plan_shards(TENSORS, 15_000 if DIRECT else 150)
WRITES = ("write", "pwrite")
CALLS = (*WRITES, "fsync", "rename", "replace", "unlink", "mkdir", "posix_fallocate")


def merge(target: Path) -> None:
    with PartialDirectory(target, "plan", resume=True, force=True) as partial:
        for shard in SHARDS:
            writer = partial.shard_writer(shard)
            for tensor in writer.pending:
                values = np.arange(tensor.numel, dtype=np.uint16) * (1 + TENSORS.index(tensor))
                writer.write(tensor.name, values[:20])
                writer.write(tensor.name, values[20:])
                writer.finish_tensor(tensor.name, {})
        partial.write_file("config.json", b"{}")
        partial.seal(SHARDS)


def die_at(countdown: int, halfway: bool) -> None:
    """Replace the calls of ``os`` by ones that end this process at the ``countdown``-th."""
    left = [countdown]

    def wrap(call):
        def counted(*arguments, **named):
            left[0] -= 1
            if left[0] == 0:
                if halfway:
                    half = memoryview(arguments[1])[: len(arguments[1]) // 2]
                    with suppress(OSError):  # of a direct request, where half is no whole number of pages
                        call(arguments[0], half, *arguments[2:])
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **named)

        return counted

    for name in WRITES if halfway else CALLS:
        setattr(os, name, wrap(getattr(os, name)))
    if not halfway:
        syscalls.exchange = wrap(syscalls.exchange)


def killed(target: Path, countdown: int, halfway: bool) -> bool:
    """Merge in a child that dies at a point; False if it ended before that."""
    child = os.fork()
    if child == 0:
        die_at(countdown, halfway)
        merge(target)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def sweep(folder: Path, prepare, halfway: bool) -> int:
    """Kill at every point in turn, after ``prepare`` has made the state before the run; the number of points."""
    expected = content(folder / "expected")
    countdown = 0
    while True:
        countdown += 1
        base = folder / f"{prepare.__name__}-{halfway}-{countdown}"
        base.mkdir()
        before = prepare(base / "out")
        if not killed(base / "out", countdown, halfway):
            return countdown - 1
        found = content(base / "out") if (base / "out").exists() else None
        assert found in (before, expected), f"{base}: incomplete under the final name: {sorted(found)}"
        merge(base / "out")
        assert content(base / "out") == expected, f"{base}: differs"
        assert [path.name for path in base.iterdir()] == ["out"], f"{base}: left something behind"


def nothing(target: Path) -> None:
    """No target, and no earlier run."""


def old_model(target: Path) -> dict[str, bytes]:
    """A target to be replaced."""
    target.mkdir()
    (target / "config.json").write_text("old")
    return content(target)


def interrupted(target: Path) -> None:
    """An earlier run that was killed more than half way."""
    assert killed(target, 25, halfway=False)


if __name__ == "__main__":
    workplace = Path(sys.argv[1])
    if DIRECT:
        output_file.DIRECT_FROM, output_file.STAGING = 0, 2 * output_file.PAGE
        output_file.DIRECT_MEMORY = (output_file.IN_FLIGHT + 1) * output_file.STAGING
        assert output_file.takes_direct(workplace, 0)
    merge(workplace / "expected")
    sweeps = [(nothing, False), (nothing, True), (old_model, False), (interrupted, False)]
    print(sum(sweep(workplace, *each) for each in sweeps))
