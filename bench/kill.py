"""Kill merges with SIGKILL at random moments, hundreds of times, and resume them.

    python bench/kill.py --kills 300 --parameters 20M
    python bench/kill.py --kills 60 --upload

Each merge is killed and resumed until it ends. Its directory must then equal an undisturbed one byte for byte, and
no directory that differs may ever bear the final name. Prints where the kills hit; exits with 1 at the first
difference.

With ``--upload`` the output goes to moto's S3 on loopback, over and over into one folder: one merge into an empty one
and the next in place of that model, which is another. After each kill, a folder that has an index
must be one of the two models, byte for byte; at the end of each merge it must be the new one, and nothing beside it.
What kills leave in the store are parts that nobody can find but by asking for unfinished uploads: these are counted.
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
import urllib.request
from collections import Counter
from contextlib import suppress
from pathlib import Path

from _measure import report
from generate import Spec, generate, llama, quantity
from remote import bucket, empty

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


class Bucket:
    """The bucket of a server at ``endpoint``, as its readers see it."""

    def __init__(self, endpoint: str) -> None:
        from obstore.store import S3Store

        self.endpoint = endpoint
        self.store = S3Store("bucket", endpoint=endpoint, client_options={"allow_http": True})

    def content(self) -> dict[str, bytes]:
        """All objects, once the server has worked off what a killed run had asked for."""
        import obstore

        while True:
            before = self.listed()
            time.sleep(0.2)
            with suppress(FileNotFoundError):
                found = {name: bytes(obstore.get(self.store, name).bytes()) for name in before}
                if self.listed() == before:
                    return found

    def listed(self) -> dict[str, str]:
        import obstore

        return {entry["path"]: entry["e_tag"] for batch in obstore.list(self.store) for entry in batch}

    def clear(self) -> None:
        import obstore

        obstore.delete(self.store, list(self.listed()))

    def unfinished(self) -> int:
        """Uploads of several parts that were neither completed nor aborted."""
        with urllib.request.urlopen(f"{self.endpoint}/bucket?uploads", timeout=60) as answer:
            return answer.read().count(b"<UploadId>")


def phase_there(found: dict[str, bytes], replacing: bool) -> str:
    """How far a killed upload had come, from what it left in the store."""
    at = "replacing" if replacing else "new"
    staged = [name for name in found if name.startswith(".merged.partial/") and not name.endswith("upload.json")]
    if not any(name.startswith(".merged.partial/") for name in found):
        return f"{at}: before or after it wrote"
    there = {name.removeprefix("merged/") for name in found if name.startswith("merged/")}
    if replacing:
        whole = "MANIFEST.json" in there
        return f"{at}: {'shards on their way' if staged and whole else 'in the move' if staged else 'at its beginning'}"
    return f"{at}: {'at its end' if 'config.json' in there else 'shards on their way' if there else 'at its beginning'}"


def torment_upload(folder: Path, kills: int, experts: int, moments: random.Random) -> Counter[str]:
    """``kills`` kills of merges into one folder of a store; where they hit."""
    expected: list[dict[str, bytes]] = []
    commands: list[list[str]] = []
    for number, density in enumerate(("0.2", "0.4")):
        words = command("dare_ties", folder, folder / f"alone-{number}", experts)
        words = [f"density={density}" if word == "density=0.5" else word for word in words]
        words = ["12MB" if word == "8MB" else word for word in words]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        expected.append({f"merged/{name}": data for name, data in content(folder / f"alone-{number}").items()})
        commands.append(["s3://bucket/merged" if word == str(folder / f"alone-{number}") else word for word in words])
    hit: Counter[str] = Counter()
    with bucket() as endpoint:
        empty(endpoint)
        store = Bucket(endpoint)
        began = time.perf_counter()
        subprocess.run(commands[1], check=True, stdout=subprocess.DEVNULL)
        duration = 1.2 * (time.perf_counter() - began)
        empty(endpoint)
        merges = 0
        while hit.total() < kills:
            words = [*commands[merges % 2], *(["--force"] if merges % 2 else [])]
            with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
                try:
                    code = process.wait(moments.uniform(0, duration))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    code = None
            if code:
                sys.exit(f"a resumed merge failed with exit code {code}; see {folder}")
            found = store.content()
            model = {name: data for name, data in found.items() if name.startswith("merged/")}
            manifest = "merged/MANIFEST.json"
            whole = [{name: data for name, data in each.items() if name != manifest} for each in expected]
            if code is None:
                hit[phase_there(found, bool(merges % 2))] += 1
                is_readable = "merged/model.safetensors.index.json" in model
                if is_readable and model not in expected and model not in whole:
                    sys.exit(f"half a model can be read after a kill; see {folder}")
                if model != expected[merges % 2] or merges % 2:
                    continue
                # It was killed when all was there; without --force it is told so, and its work here is left.
                found = model
                for place in (folder / "cache" / "rlmerge" / "uploads").glob("*/"):
                    shutil.rmtree(place)
            if found != expected[merges % 2]:
                sys.exit(f"merge {merges} left other objects than those of a merge into a directory; see {folder}")
            merges += 1
            if merges % 2 == 0:
                store.clear()
            print(f"{merges} merges, {hit.total()} kills, {store.unfinished()} unfinished uploads", flush=True)
        print(f"{store.unfinished()} unfinished uploads of several parts were left in the store by {hit.total()} kills")
    return hit


def told(what: str, hit: Counter[str]) -> str:
    """Where the kills of a kind of merges hit, printed at once."""
    text = f"Kills of merges {what}: " + ", ".join(f"{count} {place}" for place, count in hit.most_common()) + "."
    print(text, flush=True)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill merges at random moments and resume them.")
    parser.add_argument("--upload", action="store_true", help="of merges into an object store")
    parser.add_argument("--kills", type=int, default=300, help="over all methods (default 300)")
    parser.add_argument("--parameters", type=quantity, default="20M", help="of one model (default 20M)")
    parser.add_argument("--experts", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", action="store_true", help="append the results to bench/RESULTS.md")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="rlmerge-kill-"))
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    shapes, config = llama(arguments.parameters)
    generate(folder, shapes, config, Spec(experts=arguments.experts))
    moments = random.Random(arguments.seed)
    said: list[str] = []
    if arguments.upload:
        hit = torment_upload(folder, arguments.kills, arguments.experts, moments)
        said = [told("into a store", hit)]
    for method in () if arguments.upload else METHODS:
        hit = torment(method, folder, -(-arguments.kills // len(METHODS)), arguments.experts, moments)
        said.append(told(f"by {method}", hit))
    shutil.rmtree(folder)
    said.append("Every one of them resumed to the bytes of an undisturbed run.")
    report("Killed merges", "\n\n".join(said), arguments.record)


if __name__ == "__main__":
    main()
