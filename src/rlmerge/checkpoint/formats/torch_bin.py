"""Weights saved by torch.save: ``pytorch_model.bin``, its shards with an index, or a single file of another name.

transformers wrote them before safetensors, and some trainers still do.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlmerge.checkpoint import strictjson
from rlmerge.checkpoint.config import read_config
from rlmerge.checkpoint.files import InputFile
from rlmerge.checkpoint.formats import Format, Opened
from rlmerge.checkpoint.formats.state_dict import finish, unwrap
from rlmerge.checkpoint.formats.torch_archive import Archive
from rlmerge.checkpoint.formats.torch_values import Dense, load
from rlmerge.checkpoint.header import MAX_HEADER
from rlmerge.checkpoint.paths import inside, read_bytes
from rlmerge.checkpoint.source import Source
from rlmerge.checkpoint.weights import check_weights
from rlmerge.errors import CheckpointError

if TYPE_CHECKING:
    from rlmerge.checkpoint.model import Checkpoint

_SINGLE = "pytorch_model.bin"
_INDEX = "pytorch_model.bin.index.json"
_FILE = re.compile(r"(pytorch_)?model([-_.].+)?\.(bin|pt|pth)")
_RANK = re.compile(r"model_world_size_|.*_rank_|.*_states\.pt$")
_NUMBERED = re.compile(r".*-\d+-of-\d+\.bin")


def _weights(names: Sequence[str]) -> list[str]:
    """The files that can be meant, none where safetensors files are there too."""
    if _SINGLE in names or _INDEX in names:
        return [_SINGLE] if _SINGLE in names else [_INDEX]
    if any(name.endswith(".safetensors") and not name.startswith("adapter_") for name in names):
        return []
    return [name for name in names if _FILE.fullmatch(name) and not _RANK.match(name)]


def _recognises(root: Path, names: Sequence[str]) -> bool:
    return bool(_weights(names))


def _open(root: Path, names: Sequence[str], base: Checkpoint | None) -> Opened:
    files = _weights(names)
    if any(_NUMBERED.fullmatch(name) for name in files):
        hint = "Without the index a missing shard would go unnoticed; download or save the model again."
        raise CheckpointError(f"holds shards of weights, but not {_INDEX}", where=str(root), hint=hint)
    if len(files) > 1:
        what = f"holds {len(files)} files that can be its weights: {', '.join(files[:4])}"
        raise CheckpointError(what, where=str(root), hint="Keep the one that is meant in the directory.")
    shards = _read_index(root) if files == [_INDEX] else {files[0]: list[str]()}
    found: dict[str, Source] = {}
    for shard, listed in shards.items():
        tensors = read_tensors(InputFile(inside(root, shard)))
        missing = [name for name in listed if name not in tensors]
        if missing:
            what = f"lacks tensor {missing[0]!r}, which {_INDEX} places there ({len(missing)} missing in all)"
            hint = "Index and shards do not belong together; download both again."
            raise CheckpointError(what, where=str(root / shard), hint=hint)
        repeated = next((name for name in tensors if name in found), None)
        if repeated is not None:
            hint = "Which of them counts is undefined; save the model again."
            what = f"tensor {repeated!r} is also in another shard"
            raise CheckpointError(what, where=str(root / shard), hint=hint)
        found.update(tensors)
    model = finish(found, read_config(root), root)
    check_weights(model, root)
    return Opened("pickled PyTorch weights", model)


FORMATS = (Format("pickled PyTorch weights", _recognises, _open),)


def read_tensors(file: InputFile) -> dict[str, Source]:
    """The tensors of one file that torch.save wrote; CheckpointError if it holds anything else."""
    saved = load(Archive(file))
    found: dict[str, Source] = {}
    for name, value in unwrap(saved.value, str(file)).items():
        if isinstance(value, Dense):
            found[name] = saved.source(name, value)
        elif value is not None:
            hint = "Name the directory that holds the model's weights."
            raise CheckpointError("is no tensor of a model", where=f"{file}: {name}", hint=hint)
    return found


def _read_index(root: Path) -> dict[str, list[str]]:
    """Shard → names of its tensors."""
    path = inside(root, _INDEX)
    content = strictjson.parse(read_bytes(path, MAX_HEADER), str(path))
    placed = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(placed, dict) or not placed or not all(isinstance(name, str) for name in placed.values()):
        hint = "Save the model again with a current library."
        raise CheckpointError("weight_map must map tensor names to file names", where=str(path), hint=hint)
    shards: dict[str, list[str]] = {}
    for tensor, name in placed.items():
        inside(root, name, named_by=str(path))
        shards.setdefault(name, []).append(tensor)
    return shards
