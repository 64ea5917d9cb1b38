"""Model ids of the Hugging Face Hub, resolved to a directory of huggingface_hub's cache (extra ``hub``)."""

from __future__ import annotations

import re
from pathlib import Path

from rlmerge.errors import CheckpointError

_ID = re.compile(r"(?P<repository>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")

PATTERNS = (
    "*.safetensors", "*.json", "*.txt", "*.model", "*.model.v*", "*.jinja", "*.tiktoken", "*.spm", "*.codes", "*.md",
    "*.py", "*LICEN*", "*licen*", "*NOTICE*", "*Notice*", "*USE_POLICY*",
)  # fmt: skip
"""Files of a repository that are downloaded: weights, what belongs beside them, and the card; code is never run."""

PICKLED = ("pytorch_model*.bin", "adapter_model.bin")
"""Weights of a repository without safetensors; they are interpreted, never run."""


def parse_id(reference: str) -> tuple[str, str | None] | None:
    """(repository, revision) of ``org/name`` or ``org/name@revision``; None if it cannot be a Hub id."""
    found = _ID.fullmatch(reference)
    return (found["repository"], found["revision"]) if found else None


def fetch(repository: str, revision: str | None) -> tuple[Path, str]:
    """The snapshot directory and its commit, downloaded if the cache lacks it; CheckpointError where that fails."""
    where = f"{repository}@{revision}" if revision else repository
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        hint = "If it is a directory, check the path; to use the Hub: pip install 'rlmerge[hub]'."
        raise CheckpointError("no such directory, and Hub support is not installed", where=where, hint=hint) from None
    try:
        path = Path(snapshot_download(repository, revision=revision, allow_patterns=list(PATTERNS))).resolve()
        if not any(path.rglob("*.safetensors")):
            wanted = [*PATTERNS, *PICKLED]
            path = Path(snapshot_download(repository, revision=revision, allow_patterns=wanted)).resolve()
    except Exception as error:  # The HTTP library below, and so its errors, differs between versions.
        known = refused_by_hub(error, repository, revision, where)
        if known is not None:
            raise known from None
        hint = "Check the id, the network and the free space of the cache, then try again."
        raise CheckpointError(f"the Hub download failed ({error})", where=where, hint=hint) from error
    return path, path.name


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
        what = "neither a directory here nor a repository on the Hub" if local else "no such repository on the Hub"
        hint = "Check the spelling; for a private repository log in: hf auth login"
        return CheckpointError(what, where=where, hint=hint)
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        hint = f"Download it while online: hf download {repository}" + (f" --revision {revision}" if revision else "")
        what = f"{local}not in the Hub cache, and " if local else ""
        return CheckpointError(f"{what}the Hub cannot be reached", where=where, hint=hint)
    return None
