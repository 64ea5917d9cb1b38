"""Attack rlmerge for as long as you like: hostile headers, recipes and small files; failing calls, power cuts, flips.

    python bench/attack.py                                 # everything, about an hour
    python bench/attack.py --headers 20000 --only headers  # a quick look at one kind

Every attack must end in an answer or in one of rlmerge's own errors, within two seconds of processor time; headers with
the verdict of the safetensors library, or a stricter one that docs/guarantees.md names; merges with the bytes of an
undisturbed one, after a resumed run if need be. What breaks a rule is kept under .bench/attack/ and ends the script
with 1. tests/attacks/ runs the same attacks in small numbers.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

from _measure import BENCH, SCRATCH, report, table

sys.path.insert(0, str(BENCH.parent / "tests"))

LIMIT = 2.0
"""Seconds of processor time for one attack."""

PATIENCE = 60.0
"""Seconds after which an attack that takes no processor time waits for something that will not come."""

KEPT = SCRATCH / "attack"


@dataclass
class Outcome:
    """What came of one kind of attack."""

    kind: str
    seen: Counter[str] = field(default_factory=Counter[str])
    failures: list[str] = field(default_factory=list[str])
    slowest: float = 0.0
    seconds: float = 0.0
    peak: int = 0

    def row(self) -> list[str]:
        """The outcome as cells of a table."""
        words = ", ".join(f"{word} {count:,}" for word, count in self.seen.most_common())
        figures = [f"{self.seen.total():,}", f"{len(self.failures)}", f"{self.slowest:.2f}", f"{self.peak / 1e6:.0f}"]
        return [self.kind, *figures, f"{self.seconds:.0f}", words]


Attack = tuple[bytes, Callable[[], str]]
"""What is kept if it breaks a rule, and what carries it out and says what it saw."""


class Hang(BaseException):
    """An attack took too long."""


def _hang(*_: object) -> None:
    raise Hang


def carry_out(kind: str, attacks: Iterable[Attack]) -> Outcome:
    """Carry out attacks one after the other, each under a watch."""
    found, began = Outcome(kind), time.perf_counter()
    signal.signal(signal.SIGPROF, _hang)
    signal.signal(signal.SIGALRM, _hang)
    for octets, attack in attacks:
        started = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, LIMIT)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        try:
            word = attack()
        except (Exception, Hang) as error:
            word = f"BROKEN: {type(error).__name__}"
            KEPT.mkdir(parents=True, exist_ok=True)
            file = KEPT / f"{kind}-{len(found.failures)}"
            file.write_bytes(octets)
            file.with_suffix(".txt").write_text("".join(traceback.format_exception(error)), errors="backslashreplace")
            found.failures.append(f"{word} ({str(error)[:200]}): {file}")
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
        found.seen[word] += 1
        found.slowest = max(found.slowest, time.process_time() - started)
        if len(found.failures) == 20:
            break
    found.seconds = time.perf_counter() - began
    found.peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return found


def headers(count: int, rng: random.Random, folder: Path) -> Iterator[Attack]:
    """Safetensors files, beside the safetensors library."""
    from support.attacks import headers

    for _ in range(count):
        octets = headers.attack(rng)
        yield octets, lambda octets=octets: headers.check(octets, folder / "f").partition(":")[0]


def recipes(count: int, rng: random.Random, folder: Path) -> Iterator[Attack]:
    """Recipes and locks."""
    from support.attacks import reading, records

    for _ in range(count):
        octets = records.recipe(rng)
        yield octets, lambda octets=octets: reading.recipe_reader(octets)


def manifests(count: int, rng: random.Random, folder: Path) -> Iterator[Attack]:
    """Manifests, each verified."""
    from support.attacks import reading, records

    content, check = reading.manifest_reader(folder)
    for _ in range(count):
        octets = records.as_json(rng, content)
        yield octets, lambda octets=octets: check(octets)


def journals(count: int, rng: random.Random, folder: Path) -> Iterator[Attack]:
    """Journals, most with valid checksums."""
    from support.attacks import reading, records

    check = reading.journal_reader(folder)
    for _ in range(count):
        octets = records.as_journal(rng, records.JOURNAL)
        yield octets, lambda octets=octets: check(octets)


def cards(count: int, rng: random.Random, folder: Path) -> Iterator[Attack]:
    """Model cards, of which the license is read."""
    from support.attacks import reading, records

    check = reading.card_reader(folder)
    matter = {"license": "mit", "tags": ["a"], "base_model": ["x/y"], "date": "2024-01-01", "n": {"license": "no"}}
    for _ in range(count):
        octets = b"---\n" + records.as_yaml(rng, matter) + b"---\n# Card\n"
        yield octets, lambda octets=octets: check(octets)


def calls(count: int, rng: random.Random, folder: Path) -> Iterator[Attack]:
    """Every system call of a merge fails with every error, ``count`` times over."""
    from support.attacks.arena import ARGUMENTS, Arena, watched
    from support.attacks.faults import CODES, faults

    arena = Arena(folder)
    with faults(arena.copy()) as made:
        watched(*ARGUMENTS)

    def fail(number: int, code: int) -> str:
        with faults(arena.copy(), number, code):
            done = watched(*ARGUMENTS)
        return arena.check(done.code)

    for _ in range(count):
        for number, name in enumerate(made.names):
            for code in CODES:
                yield f"{name} {number} {code}".encode(), lambda n=number, c=code: fail(n, c)


def cuts(count: int, rng: random.Random, folder: Path) -> Iterator[Attack]:
    """The power fails after every call of a merge, into a new directory and over an old one, ``count`` times each."""
    from support.attacks.arena import ARGUMENTS, Arena, watched
    from support.attacks.power import recorded
    from support.family import tree

    arena = Arena(folder)
    for force in ((), ("--force",)):
        place = arena.copy()
        if force:
            shutil.copytree("base", "out")
        with recorded(place) as recording:
            watched(*ARGUMENTS, *force)
        old = tree(place / "base")

        def cut(after: int, seed: int, recording=recording, force=force, old=old) -> str:
            chance = (0.0, 0.5, 1.0, 0.2, 0.8)[seed % 5]
            os.chdir(folder)
            shutil.rmtree(folder / "copy", ignore_errors=True)
            recording.write(recording.state(after, chance, random.Random(seed)), folder / "copy")
            os.chdir(folder / "copy")
            if force and Path("out").exists() and tree(Path("out")) == old:
                assert after < len(recording.calls), "an output that was complete is lost"
                watched(*ARGUMENTS, *force, "--resume")
                return arena.check(0) + " after the old one"
            there = Path("out").exists()
            return arena.check(0 if there else 1, *force) + (" whole" if there else " resumed")

        for after in range(len(recording.calls) + 1):
            for seed in range(count):
                yield f"{force} {after} {seed}".encode(), lambda a=after, s=seed, cut=cut: cut(a, s)


def flips(count: int, rng: random.Random, folder: Path) -> Iterator[Attack]:
    """A changed bit anywhere: in an output it is found, in an input it is an error or another merge, never a crash."""
    from support.attacks.arena import ARGUMENTS, Arena, watched

    arena = Arena(folder)

    def flip(file: Path, place: float, bit: int) -> None:
        octets = bytearray(file.read_bytes())
        octets[int(place * len(octets))] ^= 1 << bit
        file.write_bytes(octets)

    def of_output(choice: float, place: float, bit: int) -> str:
        arena.copy()
        watched(*ARGUMENTS)
        files = sorted(path for path in Path("out").rglob("*") if path.is_file())
        flip(files[int(choice * len(files))], place, bit)
        code = watched("verify", "out", "--quiet").code
        assert code, "verify finds nothing"
        return f"output: exit {code}"

    def of_input(choice: float, place: float, bit: int) -> str:
        arena.copy()
        files = sorted(path for path in Path().rglob("*") if path.is_file())
        flip(files[int(choice * len(files))], place, bit)
        done = watched(*ARGUMENTS)
        assert done.code or watched("verify", "out", "--quiet").code == 0
        assert done.code != 2 or not Path(".out.partial").exists()
        return f"input: exit {done.code}"

    for number in range(count):
        where = rng.random(), rng.random(), rng.randrange(8)
        attack = of_output if number % 2 else of_input
        yield f"{number % 2} {where}".encode(), lambda attack=attack, where=where: attack(*where)


def races(count: int, rng: random.Random, folder: Path) -> Iterator[Attack]:
    """An input is truncated, written over, replaced or removed while a merge reads it: no output is made of two."""
    from support.attacks.arena import Arena
    from support.attacks.merging import MERGE
    from support.family import COMMAND, tree

    arena = Arena(folder)
    before = (arena.models / "e1/model.safetensors").read_bytes()
    new = before[:-8] + bytes(8)
    slow = "import os, time\nw = os.pwrite\nos.pwrite = lambda *a: (time.sleep(0.05), w(*a))[1]\n" + COMMAND[2]
    command = [COMMAND[0], "-c", slow, *MERGE, "--shard-size", "60B", "--no-cache", "--quiet"]

    def merged() -> dict[str, bytes]:
        subprocess.run(command, check=True, capture_output=True)
        found = tree(Path("out"))
        shutil.rmtree("out")
        return {name: data for name, data in found.items() if name.endswith(".safetensors")}

    arena.copy()
    allowed = [merged()]
    Path("e1/model.safetensors").write_bytes(new)
    allowed.append(merged())

    def race(kind: str, delay: float) -> str:
        arena.copy()
        file = Path("e1/model.safetensors")
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(delay)
        if kind == "truncated":
            os.truncate(file, len(before) // 2)
        elif kind == "written over":
            with file.open("r+b") as handle:
                handle.write(new)
        elif kind == "replaced":
            Path("new").write_bytes(new)
            Path("new").replace(file)
        else:
            file.unlink()
        _, errors = process.communicate()
        assert b"Traceback" not in errors and b"unexpected" not in errors, errors
        if Path("out").exists():
            found = {name: data for name, data in tree(Path("out")).items() if name.endswith(".safetensors")}
            assert process.returncode == 0 and found in allowed, "an output of two editions"
        else:
            assert process.returncode in (1, 2, -signal.SIGBUS), f"exit {process.returncode}"
        return f"{kind}: exit {process.returncode}"

    for _ in range(count):
        kind, delay = rng.choice(["truncated", "written over", "replaced", "removed"]), rng.uniform(0.2, 1.2)
        yield f"{kind} {delay}".encode(), lambda kind=kind, delay=delay: race(kind, delay)


KINDS = {
    "headers": (headers, 1_000_000),
    "recipes": (recipes, 100_000),
    "manifests": (manifests, 100_000),
    "journals": (journals, 100_000),
    "cards": (cards, 100_000),
    "calls": (calls, 1),
    "cuts": (cuts, 10),
    "flips": (flips, 5_000),
    "races": (races, 100),
}
"""Every kind of attack, and how many by default; of ``calls`` and ``cuts``, how many for each call."""


def attack(kind: str, count: int, seed: int) -> Outcome:
    """All attacks of one kind, in a process of their own, so that its peak memory is theirs."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="rlmerge-attack-", dir=memory) as folder:
        os.environ |= {"XDG_CACHE_HOME": f"{folder}/cache", "HF_HUB_OFFLINE": "1"}
        try:
            return carry_out(kind, KINDS[kind][0](count, random.Random(seed), Path(folder)))
        finally:
            os.chdir("/")


def main() -> None:
    parser = argparse.ArgumentParser(description="Attack rlmerge with hostile files, failing calls and power cuts.")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS), help="kinds of attack (default all)")
    for kind, (_, count) in KINDS.items():
        parser.add_argument(f"--{kind}", type=int, default=count, help=f"default {count:,}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", action="store_true", help="append the results to bench/RESULTS.md")
    arguments = parser.parse_args()
    shutil.rmtree(KEPT, ignore_errors=True)
    outcomes: list[Outcome] = []
    for kind in arguments.only:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            outcomes.append(pool.submit(attack, kind, getattr(arguments, kind), arguments.seed).result())
        print("; ".join(outcomes[-1].row()), flush=True)
    heading = ["attacks", "count", "broken", "slowest CPU s", "peak MB", "wall s", "what came of them"]
    body = table(heading, [outcome.row() for outcome in outcomes])
    report("Attacks", f"Seed {arguments.seed}.\n\n{body}", arguments.record)
    failures = [failure for outcome in outcomes for failure in outcome.failures]
    print(*failures, sep="\n")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
