"""DCP checkpoints in safetensors files: ``shard-0000R-model-0000I-of-0000N.safetensors``, the shards of process R.

NeMo-RL writes them by default, so do AReaL, VeOmni and torchtitan. Each file's metadata holds where its tensors begin
in the whole ones, but nothing says how large those are, nor how many processes there were.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlmerge.checkpoint import strictjson
from rlmerge.checkpoint.compose import Block, Pieces
from rlmerge.checkpoint.directory import first_missing
from rlmerge.checkpoint.formats import Format, Opened
from rlmerge.checkpoint.formats.locate import find_home, with_parents
from rlmerge.checkpoint.formats.records import sizes
from rlmerge.checkpoint.formats.state_dict import config_of, find_side_root, finish, without_prefix
from rlmerge.checkpoint.header import read_header
from rlmerge.checkpoint.paths import inside
from rlmerge.checkpoint.source import Extent, Source
from rlmerge.errors import CheckpointError

if TYPE_CHECKING:
    from rlmerge.checkpoint.model import Checkpoint

_FILE = re.compile(r"shard-(\d+)-model-(\d+)-of-(\d+)\.safetensors")
_INFO = "DCP_SHARDING_INFO"
_EMBEDDING = re.compile(r"(^|\.)(embed_tokens|wte|word_embeddings|embed_in)\.weight$")
_LAST_NORM = re.compile(r"(^|\.)(norm|ln_f|final_layernorm|final_layer_norm|final_norm)\.weight$")
_NEXT = {"gate_proj": "down_proj", "up_proj": "down_proj", "q_proj": "o_proj"}
"""Projections, and the one that takes what they give."""


def holds(root: Path, names: Sequence[str]) -> bool:
    """Whether one of ``names`` is such a shard."""
    return any(_FILE.fullmatch(name) for name in names)


def _recognises(root: Path, names: Sequence[str]) -> bool:
    return find_home(root, names, holds) is not None


def _open(root: Path, names: Sequence[str], base: Checkpoint | None) -> Opened:
    home = find_home(root, names, holds)
    assert home is not None
    folder, files = home
    places = ("huggingface", ".hf_metadata", ".")
    side = find_side_root(path / below for path in with_parents(folder, root) for below in places)
    config = config_of(side)
    shards = [name for name in files if _FILE.fullmatch(name)]
    _check_numbers(folder, shards)
    blocks: dict[str, list[Block]] = {}
    for shard in shards:
        for name, at, tensor in _placed(folder, shard):
            blocks.setdefault(name, []).append(Block(tensor, at))
    new_names = without_prefix(list(blocks), blocks)
    found = finish({new_names[name]: _tensor(name, parts) for name, parts in blocks.items()}, config, folder)
    _check_whole(found, config, folder)
    return Opened("a DCP checkpoint in safetensors files", found, side_root=side)


FORMATS = (Format("a DCP checkpoint in safetensors files", _recognises, _open),)


def _check_numbers(folder: Path, shards: Sequence[str]) -> None:
    """CheckpointError if a process's files are numbered with gaps, or the processes are."""
    numbers = [tuple(map(int, found.groups())) for name in shards if (found := _FILE.fullmatch(name))]
    totals = {total for _, _, total in numbers}
    if len(totals) > 1:
        what = f"holds shards of {' and of '.join(map(str, sorted(totals)))} files"
        raise CheckpointError(what, where=str(folder), hint=_MIXED)
    processes = {process for process, _, _ in numbers}
    missing = first_missing(processes, 1, max(processes))
    if missing is not None:
        what = f"lacks the shards of process {missing} (shard-{missing:05d}-…), but has those of {max(processes)}"
        raise CheckpointError(what, where=str(folder), hint=_INCOMPLETE)


def _placed(folder: Path, shard: str) -> list[tuple[str, tuple[int, ...], Extent]]:
    """(name, offsets in the whole tensor, shard) of each tensor of a file."""
    header = read_header(inside(folder, shard))
    where = str(folder / shard)
    if _INFO not in header.metadata:
        hint = "Only its writer could say which part of the model this is; save it again."
        raise CheckpointError(f"has the name of a shard, but no {_INFO}", where=where, hint=hint)
    told = strictjson.parse(header.metadata[_INFO].encode(), f"{where}: {_INFO}")
    found: list[tuple[str, tuple[int, ...], Extent]] = []
    for name, tensor in header.tensors.items():
        entry = told.get(name) if isinstance(told, dict) else None
        at = sizes(entry.get("saved_offsets")) if isinstance(entry, dict) else None
        if at is None or len(at) != len(tensor.shape):
            raise CheckpointError(f"{_INFO} does not say where it begins", where=f"{where}: {name}", hint=_INCOMPLETE)
        found.append((name, at, tensor))
    return found


def _tensor(name: str, blocks: Sequence[Block]) -> Source:
    """The blocks joined. The whole ends where the last of them does: holes are found, but no missing end."""
    ends = [tuple(a + n for a, n in zip(block.at, block.shape, strict=True)) for block in blocks]
    if len({len(end) for end in ends}) > 1:
        where = blocks[0].source.where
        raise CheckpointError("has another number of dimensions in another shard", where=where, hint=_MIXED)
    shape = tuple(max(lengths) for lengths in zip(*ends, strict=True))
    if len(blocks) == 1 and blocks[0].shape == shape:
        return blocks[0].source
    return Pieces(name, shape, blocks)


def _check_whole(tensors: Mapping[str, Source], config: Mapping[str, Any] | None, folder: Path) -> None:
    """CheckpointError unless the model shows that no process's shards are missing at the end.

    If they were, every tensor would be shorter along the dimension in which it is cut, and lengths that belong to
    different dimensions would differ: of the last normalisation and the rows of the embedding, of what one projection
    gives and the next one takes, of the embedding and the vocabulary.
    """
    embeddings = {name: tensor.shape for name, tensor in tensors.items() if _EMBEDDING.search(name)}
    norms = {name: tensor.shape for name, tensor in tensors.items() if _LAST_NORM.search(name)}
    if not embeddings or not norms:
        what = "holds shards that do not show whether those of all processes are there"
        raise CheckpointError(what, where=str(folder), hint=_CONSOLIDATE)
    text = (config or {}).get("text_config")
    tokens = (text if isinstance(text, dict) else config or {}).get("vocab_size")
    for name, shape in embeddings.items():
        if len(shape) != 2 or (shape[1],) not in norms.values():
            norm, length = next(iter(norms.items()))
            raise _lacking(folder, f"{norm} is {list(length)}, {name} {list(shape)}")
        if len(embeddings) == 1 and type(tokens) is int and shape[0] < tokens:
            raise _lacking(folder, f"{name} has {shape[0]} rows, the vocabulary {tokens} tokens")
    for name, tensor in tensors.items():
        into, _, out = name.rpartition(".")[0].rpartition(".")
        following = tensors.get(f"{into}.{_NEXT[out]}.weight") if out in _NEXT and name.endswith(".weight") else None
        if following is None or len(tensor.shape) != 2 or len(following.shape) != 2:
            continue
        # A query projection can give gates beside queries, so that it gives a multiple of what the output takes.
        if not following.shape[1] or tensor.shape[0] % following.shape[1]:
            raise _lacking(folder, f"{name} is {list(tensor.shape)}, {following.name} {list(following.shape)}")


def _lacking(folder: Path, why: str) -> CheckpointError:
    return CheckpointError(f"lacks the shards of some processes: {why}", where=str(folder), hint=_INCOMPLETE)


_INCOMPLETE = "Each process saves its own shards; copy those of all processes into this directory."
_MIXED = "Files of several saves were mixed; copy the whole checkpoint again."
_CONSOLIDATE = "Consolidate it with the framework that trained it (NeMo-RL: checkpointing.save_consolidated: true)."
