"""A merge from a store on another host, and into it, beside plain parallel transfers of the same objects.

    sudo python bench/two_hosts.py --parameters 40M --delay 0.02 --rate 30e6

Two network namespaces stand for the hosts, with a delay and a limited rate in each direction between them
(``_network.py``); an S3 server is on the one (npm's s3rver where ``--s3rver`` says where that is, else moto's, which
reads a whole object for each range of it), everything measured on the other. Download: all weights in ranges of 8 MiB,
32 at a time, kept nowhere, beside a merge from ``s3://`` to a directory. Upload: the files of a finished merge, two at
a time in parts of 8 MiB, beside a merge of models on the client's disk to ``s3://``. The share is that of the plain
transfer's throughput; a merge's time includes the start of the interpreter and the plan.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from _measure import BENCH, RLMERGE, Measurement, common_arguments, measure, report, table, workspace
from _network import Host, two_hosts
from generate import add_arguments, generate, llama, spec_of
from remote import CONNECTIONS, ranges, rows

BUCKET = "bucket"
PORT = 4568


@contextmanager
def s3_on(host: Host, s3rver: str | None, folder: Path) -> Iterator[str]:
    """The endpoint of an S3 server on ``host``; the environment is set for it."""
    words = [sys.executable, str(BENCH / "_serve_s3.py"), host.address]
    if s3rver:
        words = [s3rver, "-d", str(folder), "-a", host.address, "-p", str(PORT), "--no-vhost-buckets"]
    process = subprocess.Popen([*host.inside, *words], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        endpoint = f"http://{host.address}:{PORT if s3rver else int(line)}"
        # s3rver writes a line for each request, which somebody has to read.
        threading.Thread(target=process.stdout.read, daemon=True).start()
        os.environ |= {"AWS_ENDPOINT_URL": endpoint, "AWS_REGION": "us-east-1"}
        os.environ |= dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "S3RVER")
        yield endpoint
    finally:
        process.kill()
        process.wait()


def fill(endpoint: str, models: Path) -> None:
    """Make the server's bucket, with the models in it; run on the server's own host."""
    import boto3

    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=BUCKET)
    for path in sorted(models.rglob("*")):
        if path.is_file():
            put(f"models/{path.relative_to(models).as_posix()}", path)


def put(name: str, path: Path) -> None:
    import obstore
    from obstore.store import S3Store

    store = S3Store(BUCKET, endpoint=os.environ["AWS_ENDPOINT_URL"], client_options={"allow_http": True})
    obstore.put(store, name, path, chunk_size=8 * 2**20, max_concurrency=CONNECTIONS // 2)


def download(sizes: dict[str, int]) -> None:
    """Read every piece of the objects and drop it."""
    import obstore
    from obstore.store import S3Store

    store = S3Store(BUCKET, endpoint=os.environ["AWS_ENDPOINT_URL"], client_options={"allow_http": True})

    def read(piece: tuple[str, int, int]) -> int:
        return len(obstore.get_range(store, piece[0], start=piece[1], end=piece[2]))

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        assert sum(pool.map(read, ranges(sizes))) == sum(sizes.values())


def upload(folder: Path) -> None:
    """Put every file of a directory, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda path: put(f"plain/{path.name}", path), sorted(folder.iterdir())))


def measured(asked: argparse.Namespace, models: Path, work: Path) -> str:
    names = [path.name for path in sorted(models.iterdir()) if path.is_dir()]
    sizes = {
        f"models/{path.relative_to(models).as_posix()}": path.stat().st_size
        for path in sorted(models.rglob("*.safetensors"))
    }
    options = ["--no-cache", "--quiet", "--memory", asked.memory, "--shard-size", asked.shard_size]
    merge = [RLMERGE, "merge", "--method", asked.method, *options]
    there = [f"s3://{BUCKET}/models/{name}" for name in names if name != "base"]
    here = [str(models / name) for name in names if name != "base"]
    local = [*merge, "--base", str(models / "base"), *here]
    subprocess.run([*local, "-o", str(work / "alone")], check=True, stdout=subprocess.DEVNULL)
    sent = sum(path.stat().st_size for path in (work / "alone").iterdir())
    me = [sys.executable, __file__]
    down = {
        "plain download": [*me, "--download", *(f"{name}={size}" for name, size in sizes.items())],
        "merge from the store": [*merge, "--base", f"s3://{BUCKET}/models/base", *there, "-o", str(work / "out")],
    }
    up = {
        "plain upload": [*me, "--upload-folder", str(work / "alone")],
        "merge into the store": [*local, "-o"],
    }
    runs: dict[str, list[Measurement]] = {name: [] for name in (*down, *up)}
    with (
        two_hosts(asked.delay, asked.rate) as (client, server),
        s3_on(server, asked.s3rver, work / "store") as endpoint,
    ):
        subprocess.run([*server.inside, *me, "--fill", endpoint, str(models)], check=True)
        for number in range(asked.repeats):
            for name, command in (down | up).items():
                shutil.rmtree(work / "out", ignore_errors=True)
                more = [f"s3://{BUCKET}/merged-{number}"] if command[-1] == "-o" else []
                runs[name].append(measure([*client.inside, *command, *more]))
    header = ["", "wall s", "CPU s", "MB/s", "of the plain transfer", "anonymous MiB"]
    lines = [
        *rows({name: runs[name] for name in down}, dict.fromkeys(down, sum(sizes.values())), "plain download"),
        *rows({name: runs[name] for name in up}, dict.fromkeys(up, sent), "plain upload"),
    ]
    return (
        f"Two network namespaces, {asked.delay * 1000:g} ms and {asked.rate / 1e6:g} MB/s between them in each "
        f"direction; {len(names)} models, {sum(sizes.values()) / 1e9:.2f} GB down, {sent / 1e9:.2f} GB up, by "
        f"{asked.method}; --memory {asked.memory}, --shard-size {asked.shard_size}; medians of {asked.repeats}; load "
        f"of the machine at the end {os.getloadavg()[0]:.1f}.\n\n{table(header, lines)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    common_arguments(parser)
    parser.add_argument("--delay", type=float, default=0.02, help="seconds in each direction (default 0.02)")
    parser.add_argument("--rate", type=float, default=30e6, help="bytes a second in each direction (default 30e6)")
    parser.add_argument("--s3rver", metavar="PATH", help="npm's s3rver (default: moto)")
    parser.add_argument("--method", default="task_arithmetic")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", default="512MiB")
    parser.add_argument("--shard-size", default="30MB")
    asked = parser.parse_args()
    with workspace("two_hosts", asked.keep) as work:
        models = work / "models"
        generate(models, *llama(asked.parameters), spec_of(parser, asked))
        report("A merge between two hosts", measured(asked, models, work), asked.record)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--download"]:
        download({name: int(size) for name, _, size in (each.rpartition("=") for each in sys.argv[2:])})
    elif sys.argv[1:2] == ["--upload-folder"]:
        upload(Path(sys.argv[2]))
    elif sys.argv[1:2] == ["--fill"]:
        fill(sys.argv[2], Path(sys.argv[3]))
    else:
        main()
