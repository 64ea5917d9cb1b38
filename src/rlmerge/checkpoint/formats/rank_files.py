"""FSDP rank files, as verl and SkyRL save them: ``model_world_size_W_rank_R.pt``, one state dict of shards a process.

The shards are DTensors (FSDP2, and FSDP on a device mesh) or the older ShardedTensors; configuration and tokenizer lie
in ``huggingface/`` beside them. Weights are usually the float32 master weights, and stay so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rlmerge.checkpoint import strictjson
from rlmerge.checkpoint.compose import Block, Pieces
from rlmerge.checkpoint.directory import first_missing
from rlmerge.checkpoint.files import InputFile
from rlmerge.checkpoint.formats import Format, Opened
from rlmerge.checkpoint.formats.adapted_state import is_adapted, open_adapted
from rlmerge.checkpoint.formats.locate import find_home
from rlmerge.checkpoint.formats.mesh import Mesh, read_mesh
from rlmerge.checkpoint.formats.placements import boxes
from rlmerge.checkpoint.formats.records import Record, sizes
from rlmerge.checkpoint.formats.state_dict import config_of, find_side_root, finish, unwrap
from rlmerge.checkpoint.formats.torch_archive import Archive
from rlmerge.checkpoint.formats.torch_values import Dense, Saved, load
from rlmerge.checkpoint.paths import inside, read_bytes
from rlmerge.checkpoint.source import Source
from rlmerge.errors import CheckpointError
from rlmerge.frozen import frozen

if TYPE_CHECKING:
    from rlmerge.checkpoint.model import Checkpoint

_KIND = "FSDP rank files"
_FILE = re.compile(r"model_world_size_(\d+)_rank_(\d+)\.pt")
_FLAT = re.compile(r"(^|\.)_?flat_param")


def holds(root: Path, names: Sequence[str]) -> bool:
    """Whether one of ``names`` is a rank file."""
    return any(_FILE.fullmatch(name) for name in names)


def _recognises(root: Path, names: Sequence[str]) -> bool:
    return find_home(root, names, holds) is not None


def _open(root: Path, names: Sequence[str], base: Checkpoint | None) -> Opened:
    home = find_home(root, names, holds)
    assert home is not None
    folder, files = home
    side = find_side_root((folder / "huggingface", folder, root / "huggingface", root))
    ranks = _rank_files(folder, files)
    _check_recorded_world(folder, files, len(ranks))
    tensors: dict[str, _Tensor] = {}
    for rank, name in enumerate(ranks):
        saved = load(Archive(InputFile(inside(folder, name))))
        for tensor, part in _parts(saved, rank, len(ranks)):
            tensors.setdefault(tensor, _Tensor()).add(part)
    found = {name: tensor.source(name) for name, tensor in tensors.items()}
    if is_adapted(found):
        return open_adapted(found, _KIND, folder, side, base)
    return Opened(_KIND, finish(found, config_of(side), folder), side_root=side)


FORMATS = (Format(_KIND, _recognises, _open),)


@frozen
class _Part:
    """What one process holds of a tensor. ``shape`` is the whole's; ``copied`` says that no placement is recorded."""

    where: str
    shape: tuple[int, ...]
    blocks: tuple[Block, ...]
    copied: bool = False


@dataclass
class _Tensor:
    """The parts of one tensor, rank after rank; of copies on several ranks the first one counts."""

    first: _Part | None = None
    blocks: dict[tuple[tuple[int, ...], tuple[int, ...]], Block] = field(
        default_factory=dict[tuple[tuple[int, ...], tuple[int, ...]], Block]
    )

    def add(self, part: _Part) -> None:
        """CheckpointError if it is of a tensor of another shape."""
        first = self.first = self.first or part
        if (part.shape, part.copied) != (first.shape, first.copied):
            what = f"is part of {list(part.shape)}, where {first.where} is part of {list(first.shape)}"
            raise CheckpointError(what, where=part.where, hint=_MIXED)
        for block in part.blocks:
            known = self.blocks.setdefault((block.at, block.shape), block)
            if part.copied and known is not block and not _same_values(known.source, block.source):
                what = "is on every rank, but with other values; it is neither sharded nor a copy"
                raise CheckpointError(what, where=part.where, hint=_MIXED)

    def source(self, name: str) -> Source:
        assert self.first is not None
        blocks = list(self.blocks.values())
        if len(blocks) == 1 and blocks[0].shape == self.first.shape == blocks[0].source.shape:
            return blocks[0].source
        return Pieces(name, self.first.shape, blocks)


def _rank_files(folder: Path, names: Sequence[str]) -> list[str]:
    """File names by rank; CheckpointError unless they are all ranks of one world size."""
    found: dict[int, dict[int, str]] = {}
    for name in names:
        matched = _FILE.fullmatch(name)
        if matched is not None:
            found.setdefault(int(matched[1]), {})[int(matched[2])] = name
    if len(found) > 1:
        worlds = " and of ".join(map(str, sorted(found)))
        hint = "One of them was left by another run; keep the files of one world size."
        raise CheckpointError(f"holds rank files of {worlds} processes", where=str(folder), hint=hint)
    ((world, files),) = found.items()
    missing = first_missing(files, 0, world - 1)
    hint = "Each node saves its own ranks; copy them all into this directory."
    if missing is not None:
        what = f"lacks rank {missing}; it holds {len(files)} of {world} rank files"
        raise CheckpointError(what, where=str(folder), hint=hint)
    if len(files) > world:
        raise CheckpointError(f"holds {len(files)} rank files of {world} ranks", where=str(folder), hint=hint)
    return [files[rank] for rank in range(world)]


def _check_recorded_world(folder: Path, names: Sequence[str], world: int) -> None:
    """CheckpointError if the fsdp_config.json that verl writes is of another number of processes."""
    if "fsdp_config.json" not in names:
        return
    path = inside(folder, "fsdp_config.json")
    told = strictjson.parse(read_bytes(path, 1 << 20), str(path), unique_keys=False)
    recorded = told.get("world_size") if isinstance(told, dict) else None
    if type(recorded) is int and recorded != world:
        what = f"says that {recorded} processes saved this checkpoint, but its rank files are of {world}"
        raise CheckpointError(what, where=str(path), hint=_MIXED)


def _parts(saved: Saved, rank: int, world: int) -> Iterator[tuple[str, _Part]]:
    """What the file of one rank holds of each tensor."""
    meshes: dict[int, Mesh] = {}
    for name, value in unwrap(saved.value, str(saved.file)).items():
        where = f"{saved.file}: {name}"
        if _FLAT.search(name):
            hint = "Save a sharded or full state dict instead, or consolidate it with the framework that trained it."
            what = "is a flattened parameter of FSDP, which no longer says what it consists of"
            raise CheckpointError(what, where=where, hint=hint)
        if isinstance(value, Dense):
            block = Block(saved.source(name, value), (0,) * len(value.shape))
            yield name, _Part(where, value.shape, (block,), copied=True)
        elif isinstance(value, Record) and value.kind == "DTensor":
            yield name, _distributed(name, value, saved, rank, world, meshes)
        elif isinstance(value, Record) and value.kind == "ShardedTensor":
            yield name, _sharded(name, value, saved, rank)
        elif value is not None:
            raise CheckpointError("is no tensor", where=where, hint=_MIXED)


def _distributed(name: str, value: Record, saved: Saved, rank: int, world: int, meshes: dict[int, Mesh]) -> _Part:
    """The local part of a DTensor."""
    where = f"{saved.file}: {name}"
    spec, local = value.field("_spec"), value.field("_local_tensor")
    meta = spec.field("tensor_meta") if isinstance(spec, Record) else None
    shape = sizes(meta.field("shape", 0)) if isinstance(meta, Record) else None
    if not isinstance(spec, Record) or not isinstance(local, Dense) or shape is None:
        raise CheckpointError("is a distributed tensor of an unknown form", where=where, hint=_NEWER)
    recorded = spec.field("mesh")
    mesh = meshes.get(id(recorded))
    if mesh is None:
        mesh = meshes[id(recorded)] = read_mesh(recorded, rank, world, saved)
    placed = boxes(shape, spec.field("placements"), spec.field("shard_order"), mesh, where)
    held = tuple(max((box.start[i] + box.shape[i] for box in placed), default=0) for i in range(len(shape)))
    if held != local.shape if placed else local.count:
        what = f"is {list(local.shape)}, where its placement of {list(shape)} leaves {list(held)} to rank {rank}"
        raise CheckpointError(what, where=where, hint=_MIXED)
    if not placed:
        return _Part(where, shape, ())
    source = saved.source(name, local)
    return _Part(where, shape, tuple(Block(source, box.at, box.start, box.shape) for box in placed))


def _sharded(name: str, value: Record, saved: Saved, rank: int) -> _Part:
    """The local shards of a ShardedTensor."""
    where = f"{saved.file}: {name}"
    malformed = CheckpointError("is a sharded tensor of an unknown form", where=where, hint=_NEWER)
    state = value.state if isinstance(value.state, tuple) else ()
    shards, meta, process = (*state, None, None, None)[:3]
    shape = sizes(meta.field("size", 1)) if isinstance(meta, Record) else None
    if shape is None or not isinstance(shards, list):
        raise malformed
    writer = process.field("global_rank") if isinstance(process, Record) else None
    if type(writer) is int and writer != rank:
        raise CheckpointError(f"was written by rank {writer}, not {rank}", where=str(saved.file), hint=_MIXED)
    blocks: list[Block] = []
    for shard in shards:
        tensor, placed = (shard.field("tensor", 0), shard.field("metadata", 1)) if isinstance(shard, Record) else (0, 0)
        if not isinstance(tensor, Dense) or not isinstance(placed, Record):
            raise malformed
        at = sizes(placed.field("shard_offsets", 0))
        if at is None or sizes(placed.field("shard_sizes", 1)) != tensor.shape:
            raise malformed
        blocks.append(Block(saved.source(name, tensor), at))
    return _Part(where, shape, tuple(blocks))


def _same_values(a: Source, b: Source) -> bool:
    """Whether copies on two ranks are equal, as far as samples show for large ones."""
    small = a.nbytes <= 1 << 20
    return a.shape == b.shape and a.dtype is b.dtype and a.fingerprint(small) == b.fingerprint(small)


_MIXED = "Files of several runs were mixed or renamed; copy the whole checkpoint again."
_NEWER = "It was written by a version of torch that is not known here; consolidate it with the training framework."
