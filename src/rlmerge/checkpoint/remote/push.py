"""A finished output directory becomes a repository of the Hugging Face Hub (extra ``hub``), in one commit.

Everything is checked before anything is sent: each byte against the manifest, the card's base models, and its license
against those of the models that were merged. What goes up is what the manifest lists, and the manifest. Weights are
sent ahead of the commit, and what the Hub has is not sent again; the commit then changes the branch at once.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from rlmerge.checkpoint import hub
from rlmerge.checkpoint.hashing import new_digest
from rlmerge.checkpoint.license import STRICTNESS, license_of, read_license, strictest
from rlmerge.checkpoint.manifest import NAME as MANIFEST
from rlmerge.checkpoint.manifest import FileRecord, read_manifest
from rlmerge.checkpoint.paths import read_bytes
from rlmerge.checkpoint.remote.refusals import brief
from rlmerge.checkpoint.verify import verify
from rlmerge.errors import RequestError, RlmergeError, RunError, did_you_mean
from rlmerge.extras import require
from rlmerge.text import quoted

CARD = "README.md"
LOCK = "rlmerge.lock.yaml"

KEPT = (".gitattributes",)
"""Files of a repository that the Hub itself writes."""

_TOGETHER = 4
"""Files that are sent at a time."""

_LARGEST_CARD = 2**24
_LARGEST_LOCK = 2**26
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Outgoing:
    """A file to send: its size and SHA-256; ``data`` where it is not the file on disk."""

    name: str
    bytes: int
    sha256: str
    data: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Push:
    """What a push will do, or has done.

    ``exists`` says whether the repository was there, ``removed`` names its files that go with the commit, and
    ``unchecked`` the source models whose license could not be found out. ``commit`` is its hash once there is one.
    """

    directory: Path
    repository: str
    revision: str
    private: bool
    exists: bool
    has_revision: bool
    files: tuple[Outgoing, ...]
    removed: tuple[str, ...]
    license: str
    base_models: tuple[str, ...]
    unchecked: tuple[str, ...]
    commit: str | None = None

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.bytes for file in self.files)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        return {
            "directory": str(self.directory),
            "repository": self.repository,
            "revision": self.revision,
            "private": self.private,
            "exists": self.exists,
            "license": self.license,
            "base_models": list(self.base_models),
            "unchecked": list(self.unchecked),
            "bytes": self.bytes,
            "files": [{"name": each.name, "bytes": each.bytes, "sha256": each.sha256} for each in self.files],
            "removed": list(self.removed),
            "commit": self.commit,
        }


def prepare(
    directory: Path,
    repository: str,
    *,
    revision: str = "main",
    private: bool = False,
    force: bool = False,
    license: str | None = None,
    advance: Callable[[int], None],
) -> Push:
    """Check the directory and the Hub; nothing is changed. ``license`` is entered into a card that has none.

    RequestError if the name is no repository's, the directory is not what its manifest says, its card states no base
    model or license or one that a source model's is stricter than, or the repository holds files that would be lost
    without ``force``; RunError if the Hub cannot be asked.
    """
    if not _NAME.fullmatch(repository):
        hint = "Write org/name, and the branch as --revision."
        raise RequestError(f"{quoted(repository)} is not the name of a Hub repository", hint=hint)
    if license is not None and license not in STRICTNESS:
        raise RequestError(f"unknown license '{license}'", hint=did_you_mean(license, STRICTNESS))
    files = _verified(directory, advance)
    base_models = _base_models(directory)
    stated = read_license(directory)
    if stated is None and license is not None:
        files = _relicensed(directory, files, license)
        stated = license
    elif license is not None and stated != license:
        hint = "Leave --license away, or merge again with models whose cards say otherwise."
        raise RequestError(f"the card states the license {stated}, not {license}", where=_at(directory), hint=hint)
    if stated is None:
        hint = "Find out the licenses of the models it was merged from, and give the strictest as --license ID."
        raise RequestError("states no license that can be read", where=_at(directory), hint=hint)
    api, huggingface_hub = _api()
    unchecked = _check_license(directory, stated, api)
    plan = Push(directory, repository, revision, private, False, False, files, (), stated, base_models, unchecked)
    return _compared(plan, api, huggingface_hub, force)


def push(plan: Push, advance: Callable[[int], None]) -> Push:
    """Send what is planned: the repository where there is none, the weights, and one commit; the plan with its hash.

    RunError if the Hub fails or refuses; run again, what it has is not sent again. RunError too if the commit does not
    hold what was sent.
    """
    api, huggingface_hub = _api()
    where = f"hf://{plan.repository}@{plan.revision}"
    additions = [_operation(huggingface_hub, plan, file) for file in plan.files]
    deletions = [huggingface_hub.CommitOperationDelete(name) for name in plan.removed]
    with _told(where):
        if not plan.exists:
            api.create_repo(plan.repository, private=plan.private, exist_ok=True)
        if not plan.has_revision:
            api.create_branch(plan.repository, branch=plan.revision, exist_ok=True)
        for start in range(0, len(additions), _TOGETHER):
            part = additions[start : start + _TOGETHER]
            api.preupload_lfs_files(
                plan.repository, part, revision=plan.revision, num_threads=_TOGETHER, free_memory=False
            )
            advance(sum(file.bytes for file in plan.files[start : start + _TOGETHER]))
        message = f"Upload a merge of {', '.join(plan.base_models)} with rlmerge"
        made = api.create_commit(
            plan.repository, [*additions, *deletions], commit_message=message[:200], revision=plan.revision
        )
        found = _held(api, plan.repository, made.oid)
    wrong = [file.name for file in plan.files if not _is_there(plan.directory, file, found.get(file.name))]
    if wrong:
        hint = "Do not use that commit; see the repository's .gitignore, and push again."
        what = f"the commit {made.oid} does not hold {quoted(wrong[0])} as it was sent ({len(wrong)} such files)"
        raise RunError(what, where=where, hint=hint)
    return replace(plan, commit=made.oid)


class _told:
    """Turns what the Hub's library raises into a RunError."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        # The HTTP library below, and so its errors, differs between versions.
        if not isinstance(error, Exception) or isinstance(error, RlmergeError):
            return
        status = getattr(getattr(error, "response", None), "status_code", None)
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        if status in (401, 403):
            hint = "Log in with a token that may write there: hf auth login"
            raise RunError("the Hub denies access", where=self.where, hint=hint) from None
        hint = "Push again: what has arrived is not sent again."
        raise RunError(f"the Hub refused or failed ({brief(cause)})", where=self.where, hint=hint) from None


def _api() -> tuple[Any, Any]:
    huggingface_hub = require("huggingface_hub")
    return huggingface_hub.HfApi(), huggingface_hub


def _at(directory: Path) -> str:
    return str(directory / CARD)


def _verified(directory: Path, advance: Callable[[int], None]) -> tuple[Outgoing, ...]:
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


def _base_models(directory: Path) -> tuple[str, ...]:
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
        raise RequestError("names no base_model", where=_at(directory), hint=hint)
    return tuple(names)


def _relicensed(directory: Path, files: Sequence[Outgoing], license: str) -> tuple[Outgoing, ...]:
    """The files with a card that states ``license``, and a manifest that knows it; those on disk stay as they are."""
    text = read_bytes(directory / CARD, _LARGEST_CARD)
    card = text.replace(b"---\n", f"---\nlicense: {license}\n".encode(), 1)
    if license_of(card.decode("utf-8", "replace")) != license:
        hint = "Give it one front matter with a single line `license: ID`."
        raise RequestError("states its license in a way that cannot be read", where=_at(directory), hint=hint)
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


def _check_license(directory: Path, stated: str, api: Any) -> tuple[str, ...]:
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
            raise RequestError(what, where=_at(directory), hint=hint)
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


def _compared(plan: Push, api: Any, huggingface_hub: Any, force: bool) -> Push:
    """The plan beside what the repository holds now."""
    errors = huggingface_hub.errors
    where = f"hf://{plan.repository}"
    with _told(where):
        try:
            found = _held(api, plan.repository, plan.revision)
        except errors.RevisionNotFoundError:
            return replace(plan, exists=True)
        except errors.RepositoryNotFoundError:
            return replace(plan, has_revision=plan.revision == "main")
    names = {file.name for file in plan.files}
    removed = tuple(sorted(set(found) - names - set(KEPT)))
    others = [name for name in sorted(set(found) - set(KEPT)) if not _is_same(plan, name, found)]
    if others and not force:
        what = f"holds files that the push would replace or remove, such as {quoted(others[0])} ({len(others)} in all)"
        raise RequestError(what, where=where, hint="Choose another name or --revision, or replace them with --force.")
    return replace(plan, exists=True, has_revision=True, removed=removed)


def _is_same(plan: Push, name: str, found: Mapping[str, Any]) -> bool:
    file = next((file for file in plan.files if file.name == name), None)
    return file is not None and _is_there(plan.directory, file, found[name])


def _held(api: Any, repository: str, revision: str) -> dict[str, Any]:
    """The files of a revision by name."""
    info = api.model_info(repository, revision=revision, files_metadata=True)
    return {file.rfilename: file for file in info.siblings or ()}


def _is_there(directory: Path, file: Outgoing, held: Any) -> bool:
    """Whether the Hub holds exactly this file: by SHA-256 where it says that, by Git's own digest otherwise."""
    if held is None or held.size != file.bytes:
        return False
    if held.lfs is not None:
        return held.lfs.sha256 == file.sha256
    data = file.data if file.data is not None else read_bytes(directory / file.name, file.bytes)
    return held.blob_id == hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _operation(huggingface_hub: Any, plan: Push, file: Outgoing) -> Any:
    content = str(plan.directory / file.name) if file.data is None else file.data
    return huggingface_hub.CommitOperationAdd(path_in_repo=file.name, path_or_fileobj=content)
