"""A merge of models behind a network, beside a plain parallel download of the same objects.

    python bench/remote.py --parameters 100M --latency 0.03 --bandwidth 100e6

The models are served by ``_serve.py`` on loopback, with the latency and the bandwidth that are asked for. The download
reads all weights in ranges of 8 MiB, 32 at a time, with obstore (and with fsspec's HTTP file system where that is
installed), and keeps nothing. The merge is the ``rlmerge`` command; its time includes the start of the interpreter, the
plan, and writing the output. The share is that of the download's throughput, in bytes that the merge has to read once.

With ``--upload`` the models are here, and the output goes to moto's S3 on loopback, beside a plain upload of the same
files by obstore, two at a time in parts of 8 MiB. The share is that of this upload's throughput.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import urllib.request
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


@contextmanager
def bucket() -> Iterator[str]:
    """The endpoint of an S3 server with an empty ``bucket``; the environment is set for it."""
    process = subprocess.Popen([sys.executable, str(BENCH / "_serve_s3.py")], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        endpoint = f"http://127.0.0.1:{int(process.stdout.readline())}"
        os.environ |= {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
        os.environ["AWS_REGION"] = "us-east-1"
        yield endpoint
    finally:
        process.kill()
        process.wait()


def empty(endpoint: str) -> None:
    """Forget everything that the server holds, and make the bucket."""
    for method, path in (("POST", "moto-api/reset"), ("PUT", "bucket")):
        request = urllib.request.Request(f"{endpoint}/{path}", data=b"", method=method)
        urllib.request.urlopen(request, timeout=60).read()


def upload(folder: Path) -> None:
    """Put every file of a directory, two at a time."""
    import obstore
    from obstore.store import S3Store

    endpoint = os.environ["AWS_ENDPOINT_URL"]
    store = S3Store("bucket", prefix="plain", endpoint=endpoint, client_options={"allow_http": True})

    def put(path: Path) -> None:
        obstore.put(store, path.name, path, chunk_size=PIECE, max_concurrency=CONNECTIONS // 2)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(put, sorted(folder.iterdir())))


def uploads(asked: argparse.Namespace, models: Path, work: Path) -> str:
    """A merge into a directory, a plain upload of that, and a merge into the store."""
    names = [path.name for path in sorted(models.iterdir()) if path.is_dir()]
    experts = [str(models / name) for name in names if name != "base"]
    options = ["--no-cache", "--quiet", "--memory", asked.memory, "--shard-size", asked.shard_size]
    method = asked.methods[0]
    words = [RLMERGE, "merge", "--method", method, "--base", str(models / "base"), *experts, *options]
    commands = {
        "merge, to this disk": [*words, "-o", str(work / "out"), "--force"],
        "plain upload": [sys.executable, __file__, "--upload-folder", str(work / "out")],
        "merge, to the store": [*words, "-o", "s3://bucket/merged"],
    }
    runs: dict[str, list[Measurement]] = {name: [] for name in commands}
    with bucket() as endpoint:
        for _ in range(asked.repeats):
            for name, command in commands.items():
                empty(endpoint)
                runs[name].append(measure(command))
    total = sum(path.stat().st_size for path in (work / "out").iterdir())
    found = list(rows(runs, dict.fromkeys(runs, total), "plain upload"))
    return (
        f"{total / 1e9:.2f} GB written by {method} from {len(names)} models on this disk, to moto's S3 on loopback; "
        f"--memory {asked.memory}, --shard-size {asked.shard_size}; medians of {asked.repeats}.\n\n"
    ) + table(["", "wall s", "CPU s", "MB/s", "of the plain upload", "anonymous MiB"], found)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    common_arguments(parser)
    parser.add_argument("--latency", type=float, default=0.03, help="seconds before each answer (default 0.03)")
    parser.add_argument("--bandwidth", type=float, default=100e6, help="bytes a second (default 100e6)")
    parser.add_argument("--methods", nargs="+", default=["task_arithmetic", "ties"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", default="512MiB")
    parser.add_argument("--upload", action="store_true", help="measure outputs in an object store instead")
    parser.add_argument("--shard-size", default="100MB", help="with --upload (default 100MB)")
    asked = parser.parse_args(arguments)
    with workspace("remote", asked.keep) as work:
        models = work / "models"
        generate(models, *llama(asked.parameters), spec_of(parser, asked))
        if asked.upload:
            report("A merge into an object store", uploads(asked, models, work), asked.record)
            return
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
    if sys.argv[1:2] == ["--upload-folder"]:
        upload(Path(sys.argv[2]))
    elif sys.argv[1:2] == ["--download"]:
        _, _, library, address, *named = sys.argv
        download(library, address, {name: int(size) for name, _, size in (each.rpartition("=") for each in named)})
    else:
        main(sys.argv[1:])
