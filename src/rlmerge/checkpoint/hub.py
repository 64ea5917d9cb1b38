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
        from huggingface_hub import errors as hub_errors
        from huggingface_hub import snapshot_download
    except ImportError:
        hint = "If it is a directory, check the path; to use the Hub: pip install 'rlmerge[hub]'."
        raise CheckpointError("no such directory, and Hub support is not installed", where=where, hint=hint) from None
    try:
        path = Path(snapshot_download(repository, revision=revision, allow_patterns=list(PATTERNS))).resolve()
        if not any(path.rglob("*.safetensors")):
            wanted = [*PATTERNS, *PICKLED]
            path = Path(snapshot_download(repository, revision=revision, allow_patterns=wanted)).resolve()
    except hub_errors.GatedRepoError:
        hint = f"Accept its terms at https://huggingface.co/{repository} and log in: hf auth login"
        raise CheckpointError("no such directory, and the Hub repository is gated", where=where, hint=hint) from None
    except hub_errors.RevisionNotFoundError:
        hint = "Name a branch, tag or commit of the repository after the @."
        raise CheckpointError(f"the Hub repository has no revision {revision!r}", where=where, hint=hint) from None
    except hub_errors.RepositoryNotFoundError:
        hint = "Check the spelling; for a private repository log in: hf auth login"
        raise CheckpointError("neither a directory here nor a repository on the Hub", where=where, hint=hint) from None
    except (hub_errors.LocalEntryNotFoundError, hub_errors.OfflineModeIsEnabled):
        hint = f"Download it while online: hf download {repository}" + (f" --revision {revision}" if revision else "")
        what = "no such directory, not in the Hub cache, and the Hub cannot be reached"
        raise CheckpointError(what, where=where, hint=hint) from None
    except Exception as error:  # The HTTP library below, and so its errors, differs between versions.
        hint = "Check the id, the network and the free space of the cache, then try again."
        raise CheckpointError(f"the Hub download failed ({error})", where=where, hint=hint) from error
    return path, path.name
