"""Which files of a model directory hold its weights, and which that look like weights are none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from rlmerge.checkpoint import strictjson
from rlmerge.checkpoint.alike import once
from rlmerge.checkpoint.directory import INDEX, SINGLE, first_missing
from rlmerge.checkpoint.header import MAX_HEADER
from rlmerge.checkpoint.no_weights import PICKLES, no_weights, pickled
from rlmerge.checkpoint.paths import inside, read_bytes
from rlmerge.checkpoint.source import Source
from rlmerge.errors import CheckpointError

_ADAPTER = re.compile(r"(^|\.)lora_(embedding_)?[AB](\.|$)")
_MATRIX = re.compile(r"(^|[._])(proj|embed_tokens|wte|c_attn|c_fc|query_key_value|dense|fc\d?|gate|experts)\.weight$")


def find_weights(root: Path, names: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Shard file name → names of the tensors the index places there (none where there is no index), and warnings."""
    if SINGLE in names:
        both = INDEX in names
        return {SINGLE: []}, [f"{root} holds {SINGLE} and {INDEX}; the index is ignored, as transformers does"] * both
    if INDEX in names:
        return _read_index(root), []
    shards = [name for name in names if name.endswith(".safetensors") and not name.startswith("adapter_")]
    if len(shards) == 1:
        return {shards[0]: []}, []
    if shards:
        raise _without_index(root, shards)
    raise no_weights(root, names)


def _read_index(root: Path) -> dict[str, list[str]]:
    path = inside(root, INDEX)
    data = read_bytes(path, MAX_HEADER)
    shards = once("index", data, lambda: _placed(data, path))
    for name in shards:
        if name.endswith(PICKLES):
            raise pickled(str(path), name)
        inside(root, name, named_by=str(path))
    return shards


def _placed(data: bytes, path: Path) -> dict[str, list[str]]:
    """What an index says: shard file name → its tensors."""
    content = strictjson.parse(data, str(path))
    placed = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(placed, dict) or not placed or not all(isinstance(name, str) for name in placed.values()):
        hint = "Save the model again with a current library."
        raise CheckpointError("weight_map must map tensor names to file names", where=str(path), hint=hint)
    refuse_delta(content.get("metadata"), path)
    shards: dict[str, list[str]] = {}
    for tensor, name in placed.items():
        shards.setdefault(name, []).append(tensor)
    return shards


def refuse_delta(metadata: object, file: Path) -> None:
    """CheckpointError if a file's metadata says that it holds an encoded difference instead of weights."""
    if isinstance(metadata, dict) and "delta_encoding" in metadata:
        what = f"holds a sparse weight delta (delta_encoding: {metadata['delta_encoding']!r}), not a model"
        hint = "Apply the delta to its base model with the tool that wrote it, then merge the full checkpoint."
        raise CheckpointError(what, where=str(file), hint=hint)


def check_weights(tensors: Mapping[str, Source], root: Path) -> None:
    """CheckpointError for tensors that are no weights of a whole model, though they are stored like those."""
    adapted = next((name for name in tensors if "lora_" in name and _ADAPTER.search(name)), None)
    if adapted is not None:
        what = f"holds a LoRA adapter ({adapted!r}), not a model"
        hint = "Name the directory that PEFT saved, with its adapter_config.json, after its base model."
        raise CheckpointError(what, where=str(root), hint=hint)
    weights = {name: tensor for name, tensor in tensors.items() if name.endswith(".weight") and tensor.dtype.is_float}
    stubs = [name for name, tensor in weights.items() if tensor.shape == (0,)]
    if stubs:
        what = f"was saved under ZeRO-3 without its weights: {len(stubs)} tensors are empty, such as {stubs[0]!r}"
        hint = "Name the training checkpoint beside it (global_step…), or gather the weights when you save the model."
        raise CheckpointError(what, where=str(root), hint=hint)
    flat = next((name for name in tensors if "_flat_param" in name), None)
    if flat is None and all(len(tensor.shape) == 1 for tensor in weights.values()):
        flat = next((name for name in weights if _MATRIX.search(name)), None)
    if flat is not None:
        what = f"was saved under FSDP with flattened parameters: {flat!r} has one dimension"
        hint = "Save it with a full or sharded state dict (FSDP: StateDictType.FULL_STATE_DICT), and merge that."
        raise CheckpointError(what, where=str(root), hint=hint)


def _without_index(root: Path, shards: list[str]) -> CheckpointError:
    """Why several safetensors files are no model, and what to do."""
    what = f"holds {len(shards)} safetensors files but neither {SINGLE} nor {INDEX}"
    numbered = [found for name in shards if (found := re.fullmatch(r".*-(\d+)-of-(\d+)\.safetensors", name))]
    hint = f"Keep the one that is meant and name it {SINGLE}."
    if len(numbered) == len(shards):
        missing = first_missing({int(found[1]) for found in numbered}, 1, max(int(found[2]) for found in numbered))
        hint = "Restore the index, as by downloading it again; without it a missing tensor would go unnoticed."
        if missing is not None:
            hint = f"Shard {missing} is missing too; download or save the model again."
    return CheckpointError(what, where=str(root), hint=hint)
