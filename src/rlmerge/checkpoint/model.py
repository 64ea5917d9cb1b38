"""A model directory opened: every tensor's place across the shards, the configuration, and the files to copy along."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rlmerge.addresses import is_address
from rlmerge.checkpoint import hub
from rlmerge.checkpoint.alike import keep, known_of
from rlmerge.checkpoint.config import read_config, ties_embeddings
from rlmerge.checkpoint.directory import INDEX, SINGLE, entries, has_folder
from rlmerge.checkpoint.files import InputFile
from rlmerge.checkpoint.fingerprint import edition, fingerprint
from rlmerge.checkpoint.formats import Opened, find_format
from rlmerge.checkpoint.header import MAX_HEADER, Header, LaidOut, read_header
from rlmerge.checkpoint.paths import inside, read_bytes, unreadable
from rlmerge.checkpoint.side_files import find_side_files
from rlmerge.checkpoint.source import Extent, Source
from rlmerge.checkpoint.usual_header import Layout
from rlmerge.checkpoint.weights import check_weights, find_weights, refuse_delta
from rlmerge.errors import CheckpointError
from rlmerge.frozen import frozen
from rlmerge.kernels.dtypes import MERGEABLE


@frozen(eq=False)
class Checkpoint:
    """What a model directory holds; nothing of the weights but their headers has been read.

    ``reference`` is what the user wrote, ``path`` the resolved directory, ``revision`` the Hub commit if it came from
    there. ``tensors`` are in the order in which their bytes lie, shard after shard. ``format`` is what they are stored
    as; ``side_root`` is the directory of ``side_files``, and ``watched`` are these as they were when it was opened.
    """

    reference: str
    path: Path
    revision: str | None
    tensors: Mapping[str, Source]
    config: Mapping[str, Any] | None
    side_files: tuple[Path, ...]
    warnings: tuple[str, ...]
    format: str
    side_root: Path
    watched: tuple[InputFile, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @cached_property
    def tied_embeddings(self) -> bool:
        """Whether the output head shares the input embedding's weights."""
        told = ties_embeddings(self.config)
        return not any(name.endswith("lm_head.weight") for name in self.tensors) if told is None else told

    def fingerprint(self) -> str:
        """Hex identity of the weights; see ``checkpoint.fingerprint`` for what it covers. Computed once."""
        return self._fingerprint

    @cached_property
    def edition(self) -> str:
        """Hex identity of the weights that also notices edits which the fingerprint of a large model may miss."""
        return edition(self.tensors, self._fingerprint)

    @cached_property
    def _fingerprint(self) -> str:
        return fingerprint(self.tensors)


def open_checkpoint(
    reference: str | os.PathLike[str], *, revision: str | None = None, base: Checkpoint | None = None
) -> Checkpoint:
    """The checkpoint at a local directory, at an address (see ``rlmerge.addresses``), or else at a Hub id.

    ``base`` is the model that a directory of changes (an adapter, a delta) is applied to. CheckpointError if there is
    no such directory, or it is malformed, unsafe, or holds something other than a model's weights.
    """
    text = os.fspath(reference)
    if _is_remote(text):
        return _open_remote(text, revision, base)
    root, commit = _locate(text, revision)
    return _open(text, root, commit, base)


def listed_together(models: Iterable[tuple[str, str | None]]) -> AbstractContextManager[None]:
    """Within it, ``open_checkpoint`` finds those of these references and revisions that are remote listed already."""
    remote = [model for model in models if _is_remote(model[0])]
    if len(remote) < 2:
        return nullcontext()
    from rlmerge.checkpoint.remote import mirrored_together

    return mirrored_together(remote)


def _is_remote(text: str) -> bool:
    return is_address(text) and not has_folder(Path(text))


def _open_remote(text: str, revision: str | None, base: Checkpoint | None) -> Checkpoint:
    """The checkpoint at an address; messages name that, and not what stands for it here."""
    from rlmerge.checkpoint.remote import addressed, mirrored

    mirror = mirrored(text, revision)
    try:
        found = _open(text, mirror.root, mirror.commit, base, remote=True)
    except CheckpointError as error:
        where, hint = (None if x is None else addressed(x) for x in (error.where, error.hint))
        raise CheckpointError(addressed(error.what), where=where, hint=hint) from error.__cause__
    return replace(found, warnings=tuple(addressed(warning) for warning in found.warnings))


def _open(text: str, root: Path, commit: str | None, base: Checkpoint | None, remote: bool = False) -> Checkpoint:
    names = entries(root)
    layouts: Layouts = None
    kind = None if _is_plain(root, names) else find_format(root, names)
    if kind is None:
        opened, layouts = _open_safetensors(root, names)
    elif remote and not kind.is_safetensors:
        hint = "Copy it here, and name the copy."
        raise CheckpointError(f"holds {kind.name}, which is not read remotely", where=str(root), hint=hint)
    else:
        if kind.needs_base and base is None:
            hint = "Name it as BASE+DIRECTORY, or give the recipe a base_model."
            raise CheckpointError(f"holds {kind.name}, which needs the model it belongs to", where=str(root), hint=hint)
        opened = kind.open(root, names, base)
    side = opened.side_root or root
    config, warnings = opened.config, list(opened.warnings)
    if config is None:
        config = read_config(side)
    if kind is None and (decoded := _decoded(opened.tensors, config, root, layouts)):
        opened, config, warnings = decoded, decoded.config, [*warnings, *decoded.warnings]
    if config is None:
        warnings.append(f"{root} has no config.json; transformers will not load a model copied from it")
    beside = find_side_files(side)
    watched = tuple(InputFile(path) for path in beside)
    kinds = opened.format, side, watched
    return Checkpoint(text, root, commit, opened.tensors, config, beside, tuple(warnings), *kinds)


def _is_plain(root: Path, names: list[str]) -> bool:
    """Whether a directory is one of a Hugging Face model; an index can also be that of a published delta."""
    is_delta = INDEX in names and b'"delta_encoding"' in read_bytes(inside(root, INDEX), MAX_HEADER)
    return SINGLE in names or (INDEX in names and not is_delta)


Layouts = tuple[Layout, ...] | None
"""What the headers of a model say; two models opened together for which it is the same need one check."""


def _open_safetensors(root: Path, names: list[str]) -> tuple[Opened, Layouts]:
    shards, warnings = find_weights(root, names)
    headers: list[Header] = []
    for name in shards:
        headers.append(read_header(inside(root, name)))
        refuse_delta(headers[-1].metadata, headers[-1].file.path)
    layouts = tuple(header.layout for header in headers if header.layout is not None)
    usual = len(layouts) == len(headers)
    tensors: dict[str, Extent] = {}
    if usual and known_of("checked", layouts) == shards:
        if known_of("decoded", layouts) is not None:
            return Opened("safetensors", LaidOut(headers, layouts), ()), layouts
        for header in headers:
            tensors.update(header.tensors)
        return Opened("safetensors", tensors, ()), layouts
    for header, listed in zip(headers, shards.values(), strict=True):
        warnings += _check_against_index(header, listed, tensors)
        tensors.update(header.tensors)
    if not tensors:
        hint = "Download or save the model again."
        raise CheckpointError("its safetensors files hold no tensors", where=str(root), hint=hint)
    check_weights(tensors, root)
    if usual and not warnings:
        keep("checked", layouts, shards)
    return Opened("safetensors", tensors, tuple(warnings)), layouts if usual else None


def _decoded(
    tensors: Mapping[str, Source], config: Mapping[str, Any] | None, root: Path, layouts: Layouts
) -> Opened | None:
    """The model with quantised weights decoded; None for a plain one, for which nothing more is imported."""
    text = (config or {}).get("text_config")
    stated = {*(config or {}), *(text if isinstance(text, dict) else {})} & {
        "quantization_config",
        "compression_config",
    }
    if not stated and all(tensor.dtype in MERGEABLE for tensor in tensors.values()):
        return None
    from rlmerge.checkpoint.formats.delta_slime import refuse_payload
    from rlmerge.checkpoint.formats.quantised import decode_quantised, decoded_like

    earlier: tuple[object, Opened] | None = known_of("decoded", layouts)
    if earlier is not None and earlier[0] == config and isinstance(tensors, LaidOut):
        found = decoded_like(earlier[1], tensors)
        if found is not None:
            return found
    refuse_payload(tensors, root)
    found = decode_quantised(tensors, config, root)
    if layouts is not None and found is not None and not found.warnings:
        keep("decoded", layouts, (config, found))
    return found


def _locate(text: str, revision: str | None) -> tuple[Path, str | None]:
    """(resolved directory, Hub commit or None)."""
    path = Path(text).expanduser()
    try:
        is_directory = stat.S_ISDIR(path.stat().st_mode)
    except (OSError, ValueError) as error:
        if isinstance(error, PermissionError):
            raise unreadable(path, error) from error
        found = hub.parse_id(text)
        if found is None:
            hint = "Name a model directory, an address, or a Hub model as org/name[@revision]."
            raise CheckpointError("no such directory", where=text, hint=hint) from None
        return _on_hub(text, found[0], revision or found[1])
    if not is_directory:
        hint = f"Name the directory that holds the model: '{path.parent}'."
        raise CheckpointError("is a file, not a model directory", where=text, hint=hint)
    if revision is not None:
        hint = f"Remove '@{revision}', or name a Hub model as org/name@{revision}."
        raise CheckpointError("is a local directory, which has no revisions", where=text, hint=hint)
    return path.resolve(), None


def _on_hub(text: str, model: str, revision: str | None) -> tuple[Path, str]:
    """The downloaded model; a path of three parts or more is thought to be one of this machine where that may be."""
    first, _, rest = model.partition("/")
    if "/" not in rest:
        return hub.fetch(model, revision)
    repository = "/".join(model.split("/")[:2])
    hint = f"Check the path, or the spelling if a folder of the Hub repository {repository} is meant."
    if has_folder(Path(first)):
        raise CheckpointError("no such directory", where=text, hint=hint)
    try:
        return hub.fetch(model, revision)
    except CheckpointError as error:
        if error.what != hub.NOWHERE:
            raise
        raise CheckpointError("no such directory", where=text, hint=hint) from None


def _check_against_index(header: Header, listed: list[str], earlier: Mapping[str, Extent]) -> list[str]:
    """CheckpointError if the shard lacks a listed tensor or repeats one; warnings about tensors that are not listed."""
    where = str(header.file)
    missing = [name for name in listed if name not in header.tensors]
    if missing:
        what = f"lacks tensor {missing[0]!r}, which {INDEX} places there ({len(missing)} missing in all)"
        raise CheckpointError(what, where=where, hint="Index and shards do not belong together; download both again.")
    repeated = next((name for name in header.tensors if name in earlier), None)
    if repeated is not None:
        what = f"tensor {repeated!r} is also in {earlier[repeated].file.path.name}"
        raise CheckpointError(what, where=where, hint="Which of them counts is undefined; save the model again.")
    unlisted = set(header.tensors).difference(listed) if listed else set[str]()
    if not unlisted:
        return []
    return [
        f"{where} holds {len(unlisted)} tensors that {INDEX} does not list, such as {min(unlisted)!r}; they are used"
    ]
