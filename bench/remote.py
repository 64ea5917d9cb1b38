"""A merge of models behind a network, beside a plain parallel download of the same objects.

    python bench/remote.py --parameters 100M --latency 0.03 --bandwidth 100e6

The models are served by ``_serve.py`` on loopback, with the latency and the bandwidth that are asked for. The download
reads all weights in ranges of 8 MiB, 32 at a time, with obstore (and with fsspec's HTTP file system where that is
installed), and keeps nothing. The merge is the ``rlmerge`` command; its time includes the start of the interpreter, the
plan, and writing the output. The share is that of the download's throughput, in bytes that the merge has to read once.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from _measure import BENCH, RLMERGE, Measurement, common_arguments, measure, median, report, table, workspace
from generate import add_arguments, generate, llama, spec_of

PIECE = 8 * 2**20
CONNECTIONS = 32
LIBRARIES = ("obstore", "fsspec")


@contextmanager
def served(folder: Path, latency: float, bandwidth: float) -> Iterator[str]:
    """The address of ``folder`` behind a network like that."""
    words = ["--latency", str(latency), "--bandwidth", str(bandwidth)]
    process = subprocess.Popen([sys.executable, str(BENCH / "_serve.py"), str(folder), *words], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()


def ranges(sizes: dict[str, int]) -> list[tuple[str, int, int]]:
    """(name, first, last) of all pieces, the models side by side."""
    pieces = [(at, name) for name, size in sizes.items() for at in range(0, size, PIECE)]
    return [(name, at, min(sizes[name], at + PIECE)) for at, name in sorted(pieces)]


def download(library: str, address: str, sizes: dict[str, int]) -> None:
    """Read every piece and drop it."""
    if library == "obstore":
        import obstore
        from obstore.store import HTTPStore

        store = HTTPStore.from_url(address, client_options={"allow_http": True})

        def read(piece: tuple[str, int, int]) -> int:
            return len(obstore.get_range(store, piece[0], start=piece[1], end=piece[2]))

        with ThreadPoolExecutor(CONNECTIONS) as pool:
            assert sum(pool.map(read, ranges(sizes))) == sum(sizes.values())
    else:
        import fsspec

        files = fsspec.filesystem("http")
        wanted = ranges(sizes)
        for start in range(0, len(wanted), CONNECTIONS):
            part = wanted[start : start + CONNECTIONS]
            names = [f"{address}/{name}" for name, _, _ in part]
            files.cat_ranges(names, [p[1] for p in part], [p[2] for p in part], batch_size=CONNECTIONS)


def downloads(folder: Path, address: str, sizes: dict[str, int]) -> dict[str, list[str]]:
    """The commands of the libraries that are installed."""
    names = [f"{name}={size}" for name, size in sizes.items()]
    found: dict[str, list[str]] = {}
    for library in LIBRARIES:
        needed = ["obstore"] if library == "obstore" else ["fsspec", "aiohttp"]
        missing = subprocess.run([sys.executable, "-c", f"import {','.join(needed)}"], capture_output=True, check=False)
        if missing.returncode == 0:
            found[library] = [sys.executable, __file__, "--download", library, address, *names]
    return found


def rows(runs: dict[str, list[Measurement]], nbytes: dict[str, int], base: str) -> Iterator[list[str]]:
    """A line for each thing measured."""
    plain = nbytes[base] / median(runs[base], "wall")
    for name, found in runs.items():
        rate = nbytes[name] / median(found, "wall")
        yield [
            name,
            f"{median(found, 'wall'):.2f}",
            f"{median(found, 'cpu'):.2f}",
            f"{rate / 1e6:.0f}",
            f"{rate / plain:.0%}",
            f"{median(found, 'peak') / 2**20:.0f}",
        ]


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    common_arguments(parser)
    parser.add_argument("--latency", type=float, default=0.03, help="seconds before each answer (default 0.03)")
    parser.add_argument("--bandwidth", type=float, default=100e6, help="bytes a second (default 100e6)")
    parser.add_argument("--methods", nargs="+", default=["task_arithmetic", "ties"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", default="512MiB")
    asked = parser.parse_args(arguments)
    with workspace("remote", asked.keep) as work:
        models = work / "models"
        generate(models, *llama(asked.parameters), spec_of(parser, asked))
        sizes = {
            path.relative_to(models).as_posix(): path.stat().st_size for path in sorted(models.rglob("*.safetensors"))
        }
        names = [path.name for path in sorted(models.iterdir()) if path.is_dir()]
        total = sum(sizes.values())
        with served(models, asked.latency, asked.bandwidth) as address:
            commands = {f"download, {name}": words for name, words in downloads(models, address, sizes).items()}
            experts = [f"{address}/{name}" for name in names if name != "base"]
            for method in asked.methods:
                words = ["merge", "--method", method, "--base", f"{address}/base", *experts, "-o", str(work / "out")]
                commands[f"merge, {method}"] = [RLMERGE, *words, "--no-cache", "--quiet", "--memory", asked.memory]
            runs: dict[str, list[Measurement]] = {name: [] for name in commands}
            for _ in range(asked.repeats):
                for name, command in commands.items():
                    shutil.rmtree(work / "out", ignore_errors=True)
                    runs[name].append(measure(command))
        body = (
            f"{len(names)} models, {total / 1e9:.2f} GB of weights; {asked.latency * 1000:.0f} ms before each answer, "
            f"{asked.bandwidth / 1e6:.0f} MB/s in all; --memory {asked.memory}; medians of {asked.repeats}.\n\n"
        ) + table(
            ["", "wall s", "CPU s", "MB/s", "of the download", "anonymous MiB"],
            list(rows(runs, dict.fromkeys(runs, total), next(iter(commands)))),
        )
    report("A merge of models behind a network", body, asked.record)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--download"]:
        _, _, library, address, *named = sys.argv
        download(library, address, {name: int(size) for name, _, size in (each.rpartition("=") for each in named)})
    else:
        main(sys.argv[1:])
