"""Thousands of damaged checkpoints: each is read or refused in one way, quickly, and nothing in it is run."""

import random
import resource
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from rlmerge.checkpoint import open_checkpoint
from rlmerge.checkpoint.files import forget
from rlmerge.checkpoint.formats import torch_values
from rlmerge.checkpoint.formats.records import Name, Record
from rlmerge.checkpoint.formats.torch_values import Dense
from rlmerge.errors import CheckpointError

FIXTURES = Path(__file__).parents[2] / "fixtures" / "formats"
KINDS = sorted(path.name for path in FIXTURES.iterdir() if path.is_dir())

SECONDS = 2
"""Far above the time that any case takes, and far below that of a loop over sizes a file only claims."""

BYTES = b"\0\1\2\x7f\x80\xff().NRQ]absuctqhjX\x81\x85\x86\x87\x88\x8a\x8c\x93\x94"
"""Numbers and opcodes that change what follows them."""


def outcome(root):
    """Whether a directory is read, in every part, or refused."""
    began = time.process_time()
    try:
        for source in open_checkpoint(root).tensors.values():
            assert source.where and source.scratch is not None
            if source.numel <= 1 << 20:
                source.read(0, source.numel)
                source.fingerprint(False)
        return True
    except CheckpointError as error:
        str(error).encode()
        return False
    finally:
        assert time.process_time() - began < SECONDS
        forget()


def damaged(content, rng):
    data = bytearray(content)
    at = rng.randrange(len(data))
    kind = rng.random()
    if kind < 0.6:
        for _ in range(rng.choice([1, 1, 1, 2, 8])):
            # Headers and pickles come first; most of the bytes are weights, where damage goes unseen.
            spot = rng.randrange(min(len(data), 12_000))
            data[spot] = rng.choice(BYTES) if rng.random() < 0.6 else rng.randrange(256)
    elif kind < 0.7:
        del data[at:]
    elif kind < 0.8:
        del data[at : at + rng.randrange(1, 40)]
    elif kind < 0.9:
        data[at:at] = bytes(rng.choices(BYTES, k=rng.randrange(1, 40)))
    else:
        data[at : at + rng.randrange(1, 200)] = data[rng.randrange(len(data)) :][:200]
    return bytes(data)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files(tmp_path, kind):
    rng = random.Random(kind)
    root = Path(shutil.copytree(FIXTURES / kind, tmp_path / kind))
    files = sorted(path for path in root.rglob("*") if path.is_file())
    outcomes = {True: 0, False: 0}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(60):
        file = rng.choice(files)
        content = file.read_bytes()
        file.write_bytes(damaged(content, rng))
        outcomes[outcome(root)] += 1
        file.write_bytes(content)
    assert outcome(root)
    assert outcomes[False] > 10
    # Kibibytes: a size that is only claimed must not be allocated.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def junk(rng):
    plain = [None, -1, 0, 1, 2**70, 10**9, 3.5, float("nan"), True, "x", "../x", "a\n", [], {}, (), (1,), (0, 0)]
    named = [Name("Tensor"), Record("DTensor"), Record("Metadata", (), {}), Record("Shard", (0,))]
    more = [[1, "x"], {"a": 1}, (10**9, 10**9), (2**40,), Record("_StridedShard", (), {"dim": 0, "split_factor": 999})]
    return rng.choice([*plain, *named, *more])


def altered(value, rng):
    """The same value with one part, somewhere inside, replaced."""
    inner = []
    if isinstance(value, dict | list | tuple):
        inner = list(value) if isinstance(value, dict) else list(range(len(value)))
    elif isinstance(value, Record):
        inner = ["args", "state", "kind"]
    elif isinstance(value, Dense):
        inner = ["offset", "shape", "stride", "storage"]
    if not inner or rng.random() < 0.08:
        return junk(rng)
    at = rng.choice(inner)
    if isinstance(value, dict):
        copy = dict(value)
        part = copy.pop(at)
        chance = rng.random()
        if chance < 0.9:
            copy[at] = altered(part, rng)
        elif chance < 0.95:
            copy[rng.choice([None, 1, "x", "a\n", (("fqn", "x"), ("offset", (0,)))])] = part
        return copy
    if isinstance(value, list | tuple):
        return type(value)(altered(part, rng) if i == at else part for i, part in enumerate(value))
    if isinstance(value, Dense):
        return _altered_tensor(value, at, rng)
    if at == "kind":
        return Record(rng.choice(["Shard", "Replicate", "Partial", "DTensor", "other"]), value.args, value.state)
    args = altered(value.args, rng) if at == "args" else value.args
    return Record(
        value.kind, args if isinstance(args, tuple) else (), altered(value.state, rng) if at == "state" else value.state
    )


def _altered_tensor(value, at, rng):
    number = rng.choice([0, 1, 3, 2**40])
    if at == "offset":
        return replace(value, offset=number)
    if at == "storage":
        return replace(value, storage=replace(value.storage, key=rng.choice(["0", "99", "../0"])))
    numbers = list(getattr(value, at))
    if numbers:
        numbers[rng.randrange(len(numbers))] = number
    return replace(value, **{at: tuple(numbers)})


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "dcp-safetensors"])
def test_pickles_that_say_something_else(kind, monkeypatch):
    rng = random.Random(kind)
    interpret = torch_values.interpret

    def lie(*arguments):
        value = interpret(*arguments)
        for _ in range(rng.choice([0, 1, 1, 2])):
            value = altered(value, rng)
        return value

    monkeypatch.setattr(torch_values, "interpret", lie)
    outcomes = {True: 0, False: 0}
    for _ in range(130):
        outcomes[outcome(FIXTURES / kind)] += 1
    assert outcomes[False] > 30
