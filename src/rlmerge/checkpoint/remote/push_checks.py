"""What is checked of an output directory before it goes to the Hub: every byte, the card's base models, the license."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import Any

import yaml

from rlmerge.checkpoint import hub
from rlmerge.checkpoint.hashing import new_digest
from rlmerge.checkpoint.license import license_of, read_license, strictest
from rlmerge.checkpoint.manifest import NAME as MANIFEST
from rlmerge.checkpoint.manifest import FileRecord, read_manifest
from rlmerge.checkpoint.paths import read_bytes
from rlmerge.checkpoint.verify import verify
from rlmerge.errors import RequestError
from rlmerge.frozen import frozen

CARD = "README.md"
LOCK = "rlmerge.lock.yaml"

_LARGEST_CARD = 2**24
_LARGEST_LOCK = 2**26


@frozen
class Outgoing:
    """A file to send: its size and SHA-256; ``data`` where it is not the file on disk."""

    name: str
    bytes: int
    sha256: str
    data: bytes | None = field(default=None, repr=False)


def card_of(directory: Path) -> str:
    """Where the card is, for messages."""
    return str(directory / CARD)


def verified(directory: Path, advance: Callable[[int], None]) -> tuple[Outgoing, ...]:
    """Every file that the manifest lists, and the manifest; strangers stay where they are."""
    manifest = read_manifest(directory)
    found = verify(directory, sha256=True, advance=advance)
    problems = [each for each in found.problems if not each.endswith(f": is not in {MANIFEST}")]
    if problems or found.sha256 is None:
        hint = "Merge again; see all that is wrong with: rlmerge verify"
        what = f"is not what its manifest says: {problems[0]}" + (
            f" (and {len(problems) - 1} more)" if problems[1:] else ""
        )
        raise RequestError(what, where=str(directory), hint=hint)
    if CARD not in manifest.files:
        raise RequestError("has no model card", where=str(directory), hint="Merge again with this version of rlmerge.")
    sums = found.sha256
    files = [Outgoing(name, record.bytes, sums[name]) for name, record in sorted(manifest.files.items())]
    own = read_bytes(directory / MANIFEST, _LARGEST_LOCK)
    return (*files, Outgoing(MANIFEST, len(own), hashlib.sha256(own).hexdigest()))


def base_models_of(directory: Path) -> tuple[str, ...]:
    """The models that the card was made of; RequestError where it names none."""
    text = read_bytes(directory / CARD, _LARGEST_CARD).decode("utf-8", "replace")
    _, fence, rest = text.partition("---\n")
    try:
        matter = yaml.safe_load(rest.partition("\n---")[0]) if fence and text.startswith("---") else None
    except (yaml.YAMLError, RecursionError, ValueError):
        matter = None
    named = matter.get("base_model") if isinstance(matter, dict) else None
    names = [named] if isinstance(named, str) else named
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        hint = "The card must say what it was merged from, as the one that rlmerge writes does."
        raise RequestError("names no base_model", where=card_of(directory), hint=hint)
    return tuple(names)


def relicensed(directory: Path, files: Sequence[Outgoing], license: str) -> tuple[Outgoing, ...]:
    """The files with a card that states ``license``, and a manifest that knows it; those on disk stay as they are."""
    text = read_bytes(directory / CARD, _LARGEST_CARD)
    card = text.replace(b"---\n", f"---\nlicense: {license}\n".encode(), 1)
    if license_of(card.decode("utf-8", "replace")) != license:
        hint = "Give it one front matter with a single line `license: ID`."
        raise RequestError("states its license in a way that cannot be read", where=card_of(directory), hint=hint)
    manifest = read_manifest(directory)
    record = FileRecord(new_digest(manifest.algorithm, card).hexdigest(), len(card))
    listing = replace(manifest, files={**manifest.files, CARD: record}).to_json()
    fresh = {CARD: card, MANIFEST: listing}
    return tuple(
        Outgoing(file.name, len(data), hashlib.sha256(data).hexdigest(), data)
        if (data := fresh.get(file.name)) is not None
        else file
        for file in files
    )


def check_license(directory: Path, stated: str, api: Any) -> tuple[str, ...]:
    """RequestError if a source model's license is stricter than the stated one; those that cannot be found out."""
    licenses: dict[str, str | None] = {
        name: _license_of_source(name, commit, api) for name, commit in _sources(directory)
    }
    known = {name: license for name, license in licenses.items() if license is not None}
    hardest = strictest(known.values())
    # The strictest first, which is the one to state.
    for name, license in sorted(known.items(), key=lambda each: each[1] != hardest):
        if strictest([stated, license]) not in (stated, None) and license != stated:
            hint = f"Merge again: the card must state {license}, or another that is as strict."
            what = f"states the license {stated}, but {name}, of which it was merged, is under {license}"
            raise RequestError(what, where=card_of(directory), hint=hint)
    return tuple(name for name, license in licenses.items() if license is None)


def _sources(directory: Path) -> Iterator[tuple[str, str | None]]:
    """Reference and commit of each model that the lock names."""
    if not (directory / LOCK).is_file():
        return
    try:
        lock = yaml.safe_load(read_bytes(directory / LOCK, _LARGEST_LOCK))
    except (yaml.YAMLError, RecursionError, ValueError):
        return
    inputs = lock.get("inputs") if isinstance(lock, dict) else None
    for each in inputs if isinstance(inputs, list) else ():
        if isinstance(each, dict) and isinstance(each.get("model"), str):
            commit = each.get("revision")
            yield each["model"], commit if isinstance(commit, str) else None


def _license_of_source(reference: str, commit: str | None, api: Any) -> str | None:
    """The license of a model that is here or on the Hub; None where it cannot be found out."""
    path = Path(reference)
    if path.is_absolute() and path.is_dir():
        return read_license(path)
    found = hub.parse_id(reference.removeprefix("hf://")) if commit is not None else None
    if found is None:
        return None
    try:
        info = api.model_info("/".join(found[0].split("/")[:2]), revision=commit)
    except Exception:  # What cannot be asked is not known.
        return None
    license = getattr(getattr(info, "card_data", None), "license", None)
    return license.lower() if isinstance(license, str) else None
