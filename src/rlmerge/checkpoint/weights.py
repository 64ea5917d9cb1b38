"""Which files of a model directory hold its weights, and why a directory without any is not a model."""

from __future__ import annotations

from pathlib import Path

from rlmerge.checkpoint import strictjson
from rlmerge.checkpoint.header import MAX_HEADER
from rlmerge.checkpoint.paths import inside, read_bytes, unreadable
from rlmerge.errors import CheckpointError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".distcp")


def entries(root: Path) -> list[str]:
    """Names in the directory, sorted."""
    try:
        return sorted(entry.name for entry in root.iterdir())
    except OSError as error:
        raise unreadable(root, error) from error


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
        what = f"holds {len(shards)} safetensors files but neither {SINGLE} nor {INDEX}"
        hint = "Without the index a missing shard would go unnoticed; download or save the model again."
        raise CheckpointError(what, where=str(root), hint=hint)
    raise _no_weights(root, names)


def _read_index(root: Path) -> dict[str, list[str]]:
    path = inside(root, INDEX)
    content = strictjson.parse(read_bytes(path, MAX_HEADER), str(path))
    placed = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(placed, dict) or not placed or not all(isinstance(name, str) for name in placed.values()):
        hint = "Save the model again with a current library."
        raise CheckpointError("weight_map must map tensor names to file names", where=str(path), hint=hint)
    refuse_delta(content.get("metadata"), path)
    shards: dict[str, list[str]] = {}
    for tensor, name in placed.items():
        shards.setdefault(name, []).append(tensor)
    for name in shards:
        if name.endswith(_PICKLES):
            raise _pickled(str(path), name)
        inside(root, name, named_by=str(path))
    return shards


def refuse_delta(metadata: object, file: Path) -> None:
    """CheckpointError if a file's metadata says that it holds an encoded difference instead of weights."""
    if isinstance(metadata, dict) and "delta_encoding" in metadata:
        what = f"holds a sparse weight delta (delta_encoding: {metadata['delta_encoding']!r}), not a model"
        hint = "Apply the delta to its base model with the tool that wrote it, then merge the full checkpoint."
        raise CheckpointError(what, where=str(file), hint=hint)


def _no_weights(root: Path, names: list[str]) -> CheckpointError:
    """The most helpful reason why nothing here can be merged."""
    pickles = [name for name in names if name.endswith(_PICKLES)]
    if pickles and any(name.startswith("model_world_size_") for name in pickles):
        hint = "Convert the FSDP shards first, for verl: python -m verl.model_merger merge --backend fsdp …"
        return CheckpointError("holds training shards, not a Hugging Face model", where=str(root), hint=hint)
    if "adapter_config.json" in names or "adapter_model.safetensors" in names:
        hint = "Fold it into its base model first (PEFT: merge_and_unload, then save_pretrained)."
        return CheckpointError("holds a LoRA adapter, not a model", where=str(root), hint=hint)
    if pickles:
        return _pickled(str(root), pickles[0])
    if any(name.endswith(".gguf") for name in names):
        hint = "Merge the safetensors originals and convert the result to GGUF."
        return CheckpointError("holds GGUF weights, which cannot be merged", where=str(root), hint=hint)
    below = [name for name in names if (root / name / SINGLE).is_file() or (root / name / INDEX).is_file()]
    hint = f"Did you mean '{root / below[-1]}'?" if below else f"A model directory holds {SINGLE} or {INDEX}."
    return CheckpointError("holds no weights", where=str(root), hint=hint)


def _pickled(where: str, name: str) -> CheckpointError:
    hint = "Load it where you trust it and save_pretrained(…, safe_serialization=True), then merge that directory."
    what = f"keeps its weights in a pickle ({name}), which can run code when read"
    return CheckpointError(what, where=where, hint=hint)
