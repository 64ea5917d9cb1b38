"""A LoRA adapter inside the state of the model that it changes, as verl keeps it in its rank files.

Names are those of PEFT around the model: ``base_model.model.<module>.base_layer.weight`` is the model's own weight,
``….lora_A.default.weight`` a factor. Rank and alpha are in ``lora_train_meta.json``; verl scales with alpha / rank.
Newer versions leave the model's own weights out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rlmerge.checkpoint import strictjson
from rlmerge.checkpoint.compose import Renamed
from rlmerge.checkpoint.formats import Opened
from rlmerge.checkpoint.formats.adapter import apply_adapter
from rlmerge.checkpoint.formats.adapter_config import AdapterConfig
from rlmerge.checkpoint.formats.state_dict import ADAPTER, config_of, finish
from rlmerge.checkpoint.paths import inside, read_bytes
from rlmerge.checkpoint.source import Source
from rlmerge.errors import CheckpointError

if TYPE_CHECKING:
    from rlmerge.checkpoint.model import Checkpoint

SETTINGS = "lora_train_meta.json"

_PREFIX = "base_model.model."
_OF_ADAPTER = re.compile(rf"{ADAPTER.pattern}|\.(modules_to_save|original_module)\.")
_MAX_SETTINGS = 1 << 20


def is_adapted(tensors: Mapping[str, Source]) -> bool:
    """Whether some of the tensors are those of an adapter."""
    return any(ADAPTER.search(name) for name in tensors)


def open_adapted(
    tensors: Mapping[str, Source], kind: str, folder: Path, side_root: Path | None, base: Checkpoint | None
) -> Opened:
    """The model in ``tensors``, or where they are the adapter's alone ``base``, as the adapter changes it.

    CheckpointError without the settings in ``folder``, without a model to change, or as for any adapter.
    """
    from rlmerge.checkpoint.model import Checkpoint

    adapter = {name: source for name, source in tensors.items() if _OF_ADAPTER.search(name)}
    own = {_own_name(name): source for name, source in tensors.items() if name not in adapter}
    config = config_of(side_root)
    if own:
        renamed = {name: source if source.name == name else Renamed(source, name) for name, source in own.items()}
        model = finish(renamed, config, folder)
        base = Checkpoint(str(folder), folder, None, model, config, (), (), kind, side_root or folder)
    if base is None:
        hint = "Name it as BASE+DIRECTORY, or give the recipe a base_model."
        raise CheckpointError("holds a LoRA adapter without the model it belongs to", where=str(folder), hint=hint)
    opened = apply_adapter(adapter, str(folder), _settings(folder, adapter), base)
    return Opened(kind, opened.tensors, opened.warnings, side_root or opened.side_root, opened.config)


def _own_name(name: str) -> str:
    return name.removeprefix(_PREFIX).replace(".base_layer.", ".")


def _settings(folder: Path, adapter: Mapping[str, Source]) -> AdapterConfig:
    """The settings of the adapter; CheckpointError if they are missing or of another rank."""
    path = folder / SETTINGS
    if not path.exists():
        hint = f"Copy {SETTINGS} beside it; without it the scale of the updates is unknown."
        raise CheckpointError(f"holds a LoRA adapter but no {SETTINGS}", where=str(folder), hint=hint)
    told = strictjson.parse(read_bytes(inside(folder, SETTINGS), _MAX_SETTINGS), str(path))
    rank, alpha = (told.get("r"), told.get("lora_alpha")) if isinstance(told, dict) else (None, None)
    if type(rank) is not int or not isinstance(alpha, int | float) or not 0 < alpha < math.inf:
        raise CheckpointError("must give r and lora_alpha as numbers", where=str(path), hint=_AGAIN)
    for name, source in adapter.items():
        if ".lora_A." in name and source.shape[:1] != (rank,):
            what = f"says that r is {rank}, but {name!r} is {list(source.shape)}"
            raise CheckpointError(what, where=str(path), hint=_AGAIN)
    return AdapterConfig(
        where=str(path), base=None, task=None, alpha=float(alpha), alphas=(), rslora=False, dora=False,
        fan_in_fan_out=False, parameters=(), tokens=None,
    )  # fmt: skip


_AGAIN = "Copy the file that was saved together with these weights."
