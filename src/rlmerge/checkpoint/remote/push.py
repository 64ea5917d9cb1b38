"""A finished output directory becomes a repository of the Hugging Face Hub (extra ``hub``), in one commit.

Everything is checked before anything is sent: each byte against the manifest, the card's base models, and its license
against those of the models that were merged. What goes up is what the manifest lists, and the manifest. Weights are
sent ahead of the commit, and what the Hub has is not sent again; the commit then changes the branch at once.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlmerge.checkpoint.license import STRICTNESS, read_license
from rlmerge.checkpoint.paths import read_bytes
from rlmerge.checkpoint.remote.push_checks import (
    Outgoing,
    base_models_of,
    card_of,
    check_license,
    relicensed,
    verified,
)
from rlmerge.checkpoint.remote.refusals import brief
from rlmerge.errors import RequestError, RlmergeError, RunError, did_you_mean
from rlmerge.extras import require
from rlmerge.frozen import frozen
from rlmerge.text import quoted

KEPT = (".gitattributes",)
"""Files of a repository that the Hub itself writes."""

_TOGETHER = 4
"""Files that are sent at a time."""

_NAME = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*(?<![.-])(?<!\.git)")
_BRANCH = re.compile(r"(?!.*(\.\.|//|@\{))[A-Za-z0-9_][A-Za-z0-9_./-]*(?<![./])")
_LONGEST_NAME = 96


@frozen
class Push:
    """What a push will do, or has done.

    ``exists`` says whether the repository was there, ``removed`` names its files that go with the commit, and
    ``unchecked`` the source models whose license could not be found out. ``parent`` is the commit that the branch had;
    ``commit`` is the hash of the new one once there is one.
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
    parent: str | None = None
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

    RequestError if a name is none that the Hub takes, the directory is not what its manifest says, its card states no
    base model or license or one that a source model's is stricter than, the repository is public where it should be
    private, or holds files that would be lost without ``force``; RunError if the Hub cannot be asked.
    """
    if not _NAME.fullmatch(repository) or len(repository) > _LONGEST_NAME:
        hint = "Write org/name, and the branch as --revision."
        raise RequestError(f"{quoted(repository)} is not the name of a Hub repository", hint=hint)
    if not _BRANCH.fullmatch(revision):
        raise RequestError(f"{quoted(revision)} is not the name of a branch", hint="Give a plain one as --revision.")
    if license is not None and license not in STRICTNESS:
        raise RequestError(f"unknown license '{license}'", hint=did_you_mean(license, STRICTNESS))
    files = verified(directory, advance)
    base_models = base_models_of(directory)
    stated = read_license(directory)
    if stated is None and license is not None:
        files = relicensed(directory, files, license)
        stated = license
    elif license is not None and stated != license:
        hint = "Leave --license away, or merge again with models whose cards say otherwise."
        raise RequestError(f"the card states the license {stated}, not {license}", where=card_of(directory), hint=hint)
    if stated is None:
        hint = "Find out the licenses of the models it was merged from, and give the strictest as --license ID."
        raise RequestError("states no license that can be read", where=card_of(directory), hint=hint)
    api, huggingface_hub = _api()
    unchecked = check_license(directory, stated, api)
    plan = Push(directory, repository, revision, private, False, False, files, (), stated, base_models, unchecked)
    return _compared(plan, api, huggingface_hub, force)


def push(plan: Push, advance: Callable[[int], None]) -> Push:
    """Send what is planned: the repository where there is none, the weights, and one commit; the plan with its hash.

    RunError if the Hub fails or refuses, or the branch has moved since the plan was made; run again, what it has is not
    sent again. RunError too if the commit does not hold what was sent; RequestError if a file here has changed.
    """
    api, huggingface_hub = _api()
    where = f"hf://{plan.repository}@{plan.revision}"
    additions = [_operation(huggingface_hub, plan, file) for file in plan.files]
    for addition, file in zip(additions, plan.files, strict=True):
        if addition.upload_info.sha256.hex() != file.sha256:
            what = "has changed since it was compared with the manifest"
            raise RequestError(what, where=str(plan.directory / file.name), hint="See what has: rlmerge verify")
    deletions = [huggingface_hub.CommitOperationDelete(name) for name in plan.removed]
    with _told(where):
        if not plan.exists:
            api.create_repo(plan.repository, private=plan.private, exist_ok=True)
            if plan.private:
                _check_private(api.model_info(plan.repository), where)
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
            plan.repository,
            [*additions, *deletions],
            commit_message=message[:200],
            revision=plan.revision,
            parent_commit=plan.parent,
        )
        found = _files(api.model_info(plan.repository, revision=made.oid, files_metadata=True))
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
        if status in (409, 412):
            hint = "See what is there now, then push again: what has arrived is not sent again."
            raise RunError("somebody else has changed the branch meanwhile", where=self.where, hint=hint) from None
        hint = "Push again: what has arrived is not sent again."
        raise RunError(f"the Hub refused or failed ({brief(cause)})", where=self.where, hint=hint) from None


def _api() -> tuple[Any, Any]:
    huggingface_hub = require("huggingface_hub")
    return huggingface_hub.HfApi(), huggingface_hub


def _compared(plan: Push, api: Any, huggingface_hub: Any, force: bool) -> Push:
    """The plan beside what the repository holds now."""
    errors = huggingface_hub.errors
    where = f"hf://{plan.repository}"
    with _told(where):
        try:
            info = api.model_info(plan.repository, revision=plan.revision, files_metadata=True)
        except errors.RevisionNotFoundError:
            if plan.private:
                _check_private(api.model_info(plan.repository), where)
            return replace(plan, exists=True)
        except errors.RepositoryNotFoundError:
            return replace(plan, has_revision=plan.revision == "main")
    if plan.private:
        _check_private(info, where)
    found = _files(info)
    names = {file.name for file in plan.files}
    removed = tuple(sorted(set(found) - names - set(KEPT)))
    others = [name for name in sorted(set(found) - set(KEPT)) if not _is_same(plan, name, found)]
    if others and not force:
        what = f"holds files that the push would replace or remove, such as {quoted(others[0])} ({len(others)} in all)"
        raise RequestError(what, where=where, hint="Choose another name or --revision, or replace them with --force.")
    return replace(plan, exists=True, has_revision=True, removed=removed, parent=info.sha)


def _is_same(plan: Push, name: str, found: Mapping[str, Any]) -> bool:
    file = next((file for file in plan.files if file.name == name), None)
    return file is not None and _is_there(plan.directory, file, found[name])


def _files(info: Any) -> dict[str, Any]:
    """The files of a revision by name."""
    return {file.rfilename: file for file in info.siblings or ()}


def _check_private(info: Any, where: str) -> None:
    """RequestError rather than show to everybody what was to be private."""
    if info.private is False:
        hint = "Make it private in its settings on the Hub, choose another name, or leave --private away."
        raise RequestError("exists and is public", where=where, hint=hint)


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
