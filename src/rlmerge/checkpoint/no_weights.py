"""Why a directory holds no model that could be merged, and which one near it does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rlmerge.checkpoint.directory import INDEX, SINGLE, entries, has_file, has_folder
from rlmerge.checkpoint.formats import find_format
from rlmerge.errors import CheckpointError

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".distcp")
_TRAINING_STATE = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state|random_states|sampler).*")
_ITERATION = re.compile(r"iter_\d{7}")
_MAX_FOLDERS = 256


def no_weights(root: Path, names: list[str]) -> CheckpointError:
    """The most helpful reason why nothing here can be merged."""
    if _is_megatron(root, names):
        return CheckpointError(
            "holds a Megatron checkpoint, cut and named in its own way", where=str(root), hint=_MEGATRON
        )
    if "adapter_config.json" in names or "adapter_model.safetensors" in names:
        hint = "Fold it into its base model first (PEFT: merge_and_unload, then save_pretrained)."
        return CheckpointError("holds a LoRA adapter, not a model", where=str(root), hint=hint)
    pickles = [name for name in names if name.endswith(PICKLES) and not _TRAINING_STATE.fullmatch(name)]
    if pickles:
        if "params.json" in names:
            hint = "Merge its Hugging Face form instead, which is beside it or made by transformers' conversion script."
            return CheckpointError("holds the weights as their maker released them", where=str(root), hint=hint)
        return pickled(str(root), pickles[0])
    if any(name.endswith(".gguf") for name in names):
        from rlmerge.checkpoint.formats.quantised_config import foreign

        return foreign("gguf", root)
    found = models_below(root, names)
    if not found and holds_weights(root.parent):
        found = [root.parent]
    hint = f"A model directory holds {SINGLE} or {INDEX}."
    if found:
        among = f", the last of {len(found)} below it" if len(found) > 1 else ""
        hint = f"Did you mean '{found[-1]}'{among}?"
    return CheckpointError("holds no weights", where=str(root), hint=hint)


def models_below(root: Path, names: Sequence[str]) -> list[Path]:
    """Directories up to two levels down that can be opened, by the numbers in their names: the last step is last."""
    found: list[Path] = []
    for folder in _folders(root, names):
        if holds_weights(folder):
            found.append(folder)
        else:
            found += [inner for inner in _folders(folder, _listing(folder)) if holds_weights(inner)]
    return sorted(found, key=lambda path: (-len(path.parts), _by_number(path.relative_to(root).as_posix())))


def holds_weights(folder: Path) -> bool:
    """Whether a directory looks like one that can be opened."""
    names = _listing(folder)
    try:
        return SINGLE in names or INDEX in names or find_format(folder, names) is not None
    except (CheckpointError, OSError):
        return False


def _is_megatron(root: Path, names: Sequence[str]) -> bool:
    """Whether a directory is of Megatron's checkpoints, or holds one in a usual place."""
    if "common.pt" in names or any(_ITERATION.fullmatch(name) for name in names):
        return True
    if any(re.fullmatch(r"mp_rank_\d+(_\d+)?", name) for name in names):
        return True
    return any(has_file(root / place / "common.pt") for place in ("dist_ckpt", "model/dist_ckpt"))


def pickled(where: str, name: str) -> CheckpointError:
    """The error for weights in a pickle of a kind that is not read."""
    hint = "Load it where you trust it and save_pretrained(…, safe_serialization=True), then merge that directory."
    what = f"keeps its weights in a pickle ({name}), which can run code when read"
    return CheckpointError(what, where=where, hint=hint)


def _folders(root: Path, names: Sequence[str]) -> list[Path]:
    return [root / name for name in names[:_MAX_FOLDERS] if not name.startswith(".") and has_folder(root / name)]


def _listing(folder: Path) -> list[str]:
    try:
        return entries(folder)
    except CheckpointError:
        return []


def _by_number(text: str) -> list[tuple[str, int]]:
    """A key that sorts checkpoint-300 before checkpoint-1500."""
    return [(words, int(digits or 0)) for words, digits in re.findall(r"(\D*)(\d*)", text)]


_MEGATRON = (
    "Convert it first: slime's tools/convert_torch_dist_to_hf.py, verl's model_merger merge --backend megatron, "
    "or Megatron Bridge's export."
)
