"""Checkpoints of torch.distributed.checkpoint (DCP): ``.metadata``, a pickle, and ``.distcp`` files of tensors.

Each item of a ``.distcp`` file is an archive of torch.save of its own; the metadata says where it lies and which part
of which tensor it is. Accelerate and the Hugging Face Trainer write them under FSDP (``pytorch_model_fsdp_0/``), so do
prime-rl (``trainer/``), AReaL, VeOmni and torchtitan. Optimizer states in them are left alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlmerge.checkpoint.compose import Block, Pieces
from rlmerge.checkpoint.files import InputFile
from rlmerge.checkpoint.formats import Format, Opened
from rlmerge.checkpoint.formats.locate import find_home, with_parents
from rlmerge.checkpoint.formats.pickles import MAX_PICKLE
from rlmerge.checkpoint.formats.records import Record, sizes
from rlmerge.checkpoint.formats.state_dict import OPTIMIZERS, config_of, find_side_root, finish, without_prefix
from rlmerge.checkpoint.formats.torch_archive import Archive
from rlmerge.checkpoint.formats.torch_values import Dense, load, read_pickle
from rlmerge.checkpoint.paths import inside, read_bytes
from rlmerge.checkpoint.source import Source
from rlmerge.errors import CheckpointError
from rlmerge.frozen import frozen

if TYPE_CHECKING:
    from rlmerge.checkpoint.model import Checkpoint

_METADATA = ".metadata"
_OTHER_STATE = re.compile(rf"([^.]+\.)?({'|'.join(sorted(OPTIMIZERS))}|lr_scheduler|scheduler|progress|train_state)\.")
"""What is not the model's, at the top of a checkpoint or below one name."""


def holds(root: Path, names: Sequence[str]) -> bool:
    """Whether ``names`` are of a DCP checkpoint, and not of one that Megatron made of it."""
    return any(name.endswith(".distcp") for name in names) and "common.pt" not in names


def _recognises(root: Path, names: Sequence[str]) -> bool:
    return find_home(root, names, holds) is not None


def _open(root: Path, names: Sequence[str], base: Checkpoint | None) -> Opened:
    home = find_home(root, names, holds)
    assert home is not None
    folder, files = home
    side = find_side_root(path / below for path in with_parents(folder, root) for below in ("huggingface", "."))
    index = _read_index(folder, files)
    tensors = [name for name in index.shapes if not _OTHER_STATE.match(name)]
    new_names = without_prefix(tensors, index.entries, folder.name.startswith("pytorch_model_fsdp"))
    handles, pickles = dict[str, InputFile](), dict[bytes, Any]()
    found = {new_names[name]: _tensor(folder, name, index, handles, pickles) for name in tensors}
    unused = sorted({name for name in files if name.endswith(".distcp")} - {item.file for item in index.items.values()})
    warnings = [f"{folder / unused[0]} belongs to no item of {_METADATA}; it is ignored"] if unused else []
    return Opened("a DCP checkpoint", finish(found, config_of(side), folder), tuple(warnings), side_root=side)


FORMATS = (Format("a DCP checkpoint", _recognises, _open),)


@frozen(slots=True)
class _Item:
    """Where an item lies: ``length`` bytes from ``offset`` of ``file``."""

    file: str
    offset: int
    length: int


@frozen
class _Index:
    """What the metadata says: of every tensor its shape and chunks (offsets, sizes), of every chunk its item."""

    entries: Sequence[str]
    shapes: Mapping[str, tuple[int, ...]]
    chunks: Mapping[str, Sequence[tuple[tuple[int, ...], tuple[int, ...]]]]
    items: Mapping[tuple[str, tuple[int, ...] | None], _Item]


def _read_index(folder: Path, names: Sequence[str]) -> _Index:
    path = folder / _METADATA
    if _METADATA not in names:
        hint = "It is written last; the save did not end, or the file was not copied along."
        raise CheckpointError(f"holds .distcp files but no {_METADATA}", where=str(folder), hint=hint)
    read = read_pickle(read_bytes(inside(folder, _METADATA), MAX_PICKLE), str(path))
    described = read.field("state_dict_metadata") if isinstance(read, Record) and read.kind == "Metadata" else None
    stored = read.field("storage_data") if isinstance(read, Record) else None
    if not isinstance(described, dict) or not isinstance(stored, dict):
        raise CheckpointError("is not the metadata of a DCP checkpoint", where=str(path), hint=_NEWER)
    shapes: dict[str, tuple[int, ...]] = {}
    chunks: dict[str, list[tuple[tuple[int, ...], tuple[int, ...]]]] = {}
    for name, entry in described.items():
        if isinstance(name, str) and isinstance(entry, Record) and entry.kind == "TensorStorageMetadata":
            shapes[name], chunks[name] = _layout(entry, f"{path}: {name}")
    items = dict(_item(key, info, str(path)) for key, info in stored.items())
    begins = Counter((item.file, item.offset) for item in items.values())
    for (file, offset), count in begins.most_common(1):
        if count > 1:
            what = f"places two items at byte {offset} of {file}"
            raise CheckpointError(what, where=str(path), hint=_MIXED)
    return _Index([name for name in described if isinstance(name, str)], shapes, chunks, items)


def _layout(entry: Record, where: str) -> tuple[tuple[int, ...], list[tuple[tuple[int, ...], tuple[int, ...]]]]:
    """(shape, chunks) of a tensor."""
    shape, listed = sizes(entry.field("size", 1)), entry.field("chunks", 2)
    parts = [
        (sizes(chunk.field("offsets", 0)), sizes(chunk.field("sizes", 1)))
        for chunk in (listed if isinstance(listed, list) else ())
        if isinstance(chunk, Record)
    ]
    known = [(at, extent) for at, extent in parts if at is not None and extent is not None]
    if shape is None or not isinstance(listed, list) or len(known) < len(listed):
        raise CheckpointError("is described in a form that is not known", where=where, hint=_NEWER)
    return shape, known


def _item(key: Any, info: Any, where: str) -> tuple[tuple[str, tuple[int, ...] | None], _Item]:
    """((tensor, offsets of the chunk), place) of an entry of the storage data."""
    chunk = dict(key) if isinstance(key, tuple) and all(isinstance(pair, tuple) for pair in key) else {}
    name, at = chunk.get("fqn"), sizes(chunk.get("offset"))
    if not isinstance(info, Record) or info.kind != "_StorageInfo":
        info = Record("nothing")
    file, offset, length = info.field("relative_path", 0), info.field("offset", 1), info.field("length", 2)
    if not (isinstance(name, str) and isinstance(file, str) and type(offset) is int and type(length) is int):
        raise CheckpointError("places an item in a form that is not known", where=where, hint=_NEWER)
    if info.field("transform_descriptors", 3):
        hint = "Save it again without a compressing or encrypting storage writer."
        raise CheckpointError(f"{name!r} is stored transformed, as by compression", where=where, hint=hint)
    if offset < 0 or length < 0:
        raise CheckpointError(f"places {name!r} before the beginning of a file", where=where, hint=_NEWER)
    return (name, at), _Item(file, offset, length)


def _tensor(folder: Path, name: str, index: _Index, handles: dict[str, InputFile], pickles: dict[bytes, Any]) -> Source:
    """A tensor joined of its chunks, each of them found and compared with the metadata.

    ``pickles`` are those read so far: chunks of equal shape have equal ones.
    """
    shape, blocks = index.shapes[name], list[Block]()
    for at, extent in index.chunks[name]:
        item = index.items.get((name, at)) or index.items.get((name, None))
        if item is None:
            where = str(folder / _METADATA)
            raise CheckpointError(f"has no item for part {list(at)} of {name!r}", where=where, hint=_MIXED)
        file = handles.get(item.file)
        if file is None:
            file = handles[item.file] = InputFile(inside(folder, item.file, named_by=str(folder / _METADATA)))
        blocks.append(Block(_chunk(file, item, name, extent, pickles), at))
    if len(blocks) == 1 and blocks[0].shape == shape:
        return blocks[0].source
    return Pieces(name, shape, blocks)


def _chunk(file: InputFile, item: _Item, name: str, extent: tuple[int, ...], pickles: dict[bytes, Any]) -> Source:
    end = item.offset + item.length
    if end > file.size:
        what = f"ends at byte {file.size}, where {_METADATA} places part of {name!r} at {item.offset} to {end}"
        raise CheckpointError(what, where=str(file), hint=_MIXED)
    try:
        archive = Archive(file, item.offset, end)
    except CheckpointError as error:
        what = f"holds no item at byte {item.offset}, where {_METADATA} places part of {name!r} ({error.what})"
        raise CheckpointError(what, where=str(file), hint=_MIXED) from error
    saved = load(archive, pickles)
    if not isinstance(saved.value, Dense) or saved.value.shape != extent:
        found = list(saved.value.shape) if isinstance(saved.value, Dense) else "no tensor"
        what = f"holds {found} where {_METADATA} places {list(extent)} of {name!r}"
        raise CheckpointError(what, where=str(file), hint=_MIXED)
    return saved.source(name, saved.value)


_MIXED = f"{_METADATA} and the .distcp files are not of one save; copy the whole checkpoint again."
_NEWER = "It was written by a version of torch that is not known here; consolidate it with the training framework."
