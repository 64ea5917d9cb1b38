"""What each reader of small files makes of hostile ones: an answer, or an error of ours with a message to read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlmerge.checkpoint import OutputTensor, PartialDirectory, plan_shards, verify
from rlmerge.checkpoint.journal import NAME as JOURNAL
from rlmerge.checkpoint.journal import read_journal
from rlmerge.checkpoint.license import read_license
from rlmerge.cli.verify import verify_text
from rlmerge.errors import CheckpointError, RequestError
from rlmerge.kernels.dtypes import BY_NAME
from rlmerge.recipe import load_recipe

LONGEST = 20_000
"""Characters of a message; a recipe reports every problem that it has."""


def _said(error: RequestError) -> str:
    text = str(error)
    assert len(text) < LONGEST, f"a message of {len(text)} characters"
    assert all(line.isprintable() for line in text.split("\n"))
    return "refused"


def sealed(folder: Path) -> Path:
    """A small output directory, ``folder / "out"``."""
    shards = plan_shards([OutputTensor("w", BY_NAME["bfloat16"], (3, 4))], 1000)
    with PartialDirectory(folder / "out", "plan") as partial:
        writer = partial.shard_writer(shards[0])
        writer.write("w", memoryview(bytes(range(24))))
        writer.finish_tensor("w", {})
        partial.write_file("config.json", b"{}")
        partial.seal(shards)
    return folder / "out"


def manifest_reader(folder: Path) -> tuple[Any, Callable[[bytes], str]]:
    """The content of a manifest, and a function that verifies its directory with another in its place."""
    out = sealed(folder)
    file = out / "MANIFEST.json"
    content = json.loads(file.read_text())
    octets = file.read_bytes()

    def check(attack: bytes) -> str:
        file.write_bytes(attack)
        try:
            found = verify(out)
        except CheckpointError as error:
            return _said(error)
        text = verify_text(found, out, width=80, color=False)
        assert all(line.isprintable() for line in text.split("\n"))
        assert found.ok or found.problems
        # Another name, number or digest must be noticed; what the check does not rest on may differ.
        return "ok" if found.ok else "problems"

    file.write_bytes(octets)
    return content, check


def journal_reader(folder: Path) -> Callable[[bytes], str]:
    """A function that reads a journal of the given bytes."""

    def check(attack: bytes) -> str:
        (folder / JOURNAL).write_bytes(attack)
        found = read_journal(folder)
        if found is None:
            return "none"
        plan, entries = found
        assert isinstance(plan, str)
        assert all(isinstance(e.tensor, str) and "/" not in e.shard and isinstance(e.stats, dict) for e in entries)
        return f"{min(len(entries), 9)} entries"

    return check


def recipe_reader(attack: bytes) -> str:
    """Reads a recipe or a lock."""
    try:
        text = attack.decode()
    except UnicodeDecodeError:
        return "no text"
    try:
        load_recipe(text + "\n")
    except RequestError as error:
        return _said(error)
    return "read"


def card_reader(folder: Path) -> Callable[[bytes], str]:
    """A function that reads the license of a card of the given bytes."""

    def check(attack: bytes) -> str:
        (folder / "README.md").write_bytes(attack)
        found = read_license(folder)
        assert found is None or (found.isascii() and found.isprintable())
        return "none" if found is None else "a license"

    return check
