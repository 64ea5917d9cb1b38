"""Model ids of the Hugging Face Hub, resolved to a directory of huggingface_hub's cache (extra ``hub``)."""

from __future__ import annotations

import re
from pathlib import Path

from rlmerge.errors import CheckpointError

_ID = re.compile(r"(?P<model>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(/[\w-][\w.-]*)*)(@(?P<revision>[\w./-]+))?")
_SHORT = re.compile(r"[0-9a-f]{7,39}")

PATTERNS = (
    "*.safetensors", "*.json", "*.txt", "*.model", "*.model.v*", "*.jinja", "*.tiktoken", "*.spm", "*.codes", "*.md",
    "*.py", "*LICEN*", "*licen*", "*NOTICE*", "*Notice*", "*USE_POLICY*",
)  # fmt: skip
"""Files of a repository that are downloaded: weights, what belongs beside them, and the card; code is never run."""

PICKLED = ("pytorch_model*.bin", "adapter_model.bin")
"""Weights of a repository without safetensors; they are interpreted, never run."""


NOWHERE = "neither a directory here nor a repository on the Hub"


def parse_id(reference: str) -> tuple[str, str | None] | None:
    """Model and revision of ``org/name[/folder][@revision]``; None if it cannot be a Hub id."""
    found = _ID.fullmatch(reference)
    return (found["model"], found["revision"]) if found else None


def fetch(model: str, revision: str | None) -> tuple[Path, str]:
    """The directory of ``org/name`` or ``org/name/folder`` and its commit, downloaded if the cache lacks it.

    ``revision`` is a branch, a tag, or a commit, which may be cut to its first letters. CheckpointError where it fails.
    """
    where = f"{model}@{revision}" if revision else model
    organisation, name, *folders = model.split("/")
    repository, folder = f"{organisation}/{name}", "/".join(folders)
    inside = f"{folder}/" if folder else ""
    plain, pickled = ([inside + each for each in patterns] for patterns in (PATTERNS, PICKLED))
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        hint = "If it is a directory, check the path; to use the Hub: pip install 'rlmerge[hub]'."
        raise CheckpointError("no such directory, and Hub support is not installed", where=where, hint=hint) from None
    try:
        revision = _whole_commit(repository, revision)
        path = Path(snapshot_download(repository, revision=revision, allow_patterns=plain)).resolve()
        if not any((path / folder).rglob("*.safetensors")):
            wanted = [*plain, *pickled]
            path = Path(snapshot_download(repository, revision=revision, allow_patterns=wanted)).resolve()
    except Exception as error:  # The HTTP library below, and so its errors, differs between versions.
        known = refused_by_hub(error, repository, revision, where)
        if known is not None:
            raise known from None
        hint = "Check the id, the network and the free space of the cache, then try again."
        raise CheckpointError(f"the Hub download failed ({error})", where=where, hint=hint) from error
    if folder and not (path / folder).is_dir():
        hint = f"See its folders at https://huggingface.co/{repository}/tree/{path.name}"
        raise CheckpointError(f"the Hub repository has no folder '{folder}'", where=where, hint=hint)
    return path / folder, path.name


def _whole_commit(repository: str, revision: str | None) -> str | None:
    """A commit of which only the first letters are given, if the cache or else the Hub has one such; or as given."""
    if revision is None or not _SHORT.fullmatch(revision):
        return revision
    from huggingface_hub import HfApi, constants

    cache = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    if (cache / "refs" / revision).is_file():  # a branch or tag that looks like one
        return revision
    found = {path.name for path in (cache / "snapshots").glob(f"{revision}*")}
    if not found and not constants.HF_HUB_OFFLINE:
        commits = HfApi().list_repo_commits(repository)
        found = {commit.commit_id for commit in commits if commit.commit_id.startswith(revision)}
    return found.pop() if len(found) == 1 else revision


def refused_by_hub(error: Exception, repository: str, revision: str | None, where: str) -> CheckpointError | None:
    """What the Hub or its library says in ``error`` that no other try will change; None for anything else."""
    from huggingface_hub import errors

    local = "" if where.startswith("hf://") else "no such directory, "
    if isinstance(error, errors.GatedRepoError):
        hint = f"Accept its terms at https://huggingface.co/{repository} and log in: hf auth login"
        return CheckpointError(f"{local and local + 'and '}the Hub repository is gated", where=where, hint=hint)
    if isinstance(error, errors.RevisionNotFoundError):
        hint = "Name a branch, tag or commit of the repository after the @."
        return CheckpointError(f"the Hub repository has no revision {revision!r}", where=where, hint=hint)
    if isinstance(error, errors.RepositoryNotFoundError):
        what = NOWHERE if local else "no such repository on the Hub"
        hint = "Check the spelling; for a private repository log in: hf auth login"
        return CheckpointError(what, where=where, hint=hint)
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        hint = f"Download it while online: hf download {repository}" + (f" --revision {revision}" if revision else "")
        what = f"{local}not in the Hub cache, and " if local else ""
        return CheckpointError(f"{what}the Hub cannot be reached", where=where, hint=hint)
    return None
