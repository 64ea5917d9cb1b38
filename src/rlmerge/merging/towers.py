"""Where on a gradient a tensor stands: layers are counted for every tower of a model by itself."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

_LAYER = re.compile(r"^(?P<tower>.*?(?:^|\.)(?:layers?|h|blocks?|block))\.(?P<index>\d{1,6})(?:\.|$)")
_TEXT = ("text_config", "llm_config", "language_config", "thinker_config")
_KINDS = (
    (re.compile(r"vis(ion|ual)|image"), ("vision_config",), ("num_hidden_layers", "depth", "num_layers")),
    (re.compile(r"audio"), ("audio_config",), ("encoder_layers", "num_hidden_layers", "num_layers")),
    (re.compile(r"encoder"), (), ("encoder_layers", "num_layers")),
    (re.compile(r"decoder\."), (), ("decoder_layers", "num_decoder_layers", "num_hidden_layers")),
    (re.compile(r""), _TEXT, ("num_hidden_layers", "n_layer", "n_layers", "num_layers")),
)
"""By a tower's name: sections of the configuration that speak of it, and keys that count its layers."""


_DRAFT = re.compile(r"(?:^|\.)(?:mtp|nextn)(?:_|\.|$)")
"""Modules for multi-token prediction beside the layers, which speculative decoding drafts with."""


def is_draft(tensor: str, depths: Mapping[str, int]) -> bool:
    """Whether a tensor belongs to multi-token prediction: by its name, or as a layer beyond the configured ones."""
    found = tower_of(tensor)
    return bool(_DRAFT.search(tensor)) or (found is not None and found[1] >= depths.get(found[0], found[1] + 1))


def tower_of(tensor: str) -> tuple[str, int] | None:
    """The name before a tensor's layer number, and the number; None outside the layers."""
    found = _LAYER.match(tensor)
    return (found["tower"], int(found["index"])) if found else None


def tower_depths(tensors: Iterable[str], config: Mapping[str, Any] | None) -> dict[str, int]:
    """Layers of each tower: one more than its largest number, or what the configuration says where that is less.

    Layers beyond the configured number are extra ones, such as those for multi-token prediction.
    """
    depths: dict[str, int] = {}
    for name in tensors:
        if found := tower_of(name):
            depths[found[0]] = max(depths.get(found[0], 0), found[1] + 1)
    return {tower: min(depth, _configured(tower, config or {}) or depth) for tower, depth in depths.items()}


def position(tensor: str, depths: Mapping[str, int]) -> float:
    """0 at a tower's first layer and outside all layers, 1 at its last and beyond."""
    found = tower_of(tensor)
    if found is None:
        return 0.0
    tower, index = found
    depth = depths.get(tower, index + 1)
    return min(1.0, index / (depth - 1)) if depth > 1 else 1.0


def _configured(tower: str, config: Mapping[str, Any]) -> int | None:
    """How many layers the configuration gives a tower; None where it does not say."""
    _, names, keys = next(kind for kind in _KINDS if kind[0].search(tower))
    found = [config[name] for name in names if isinstance(config.get(name), Mapping)]
    sections = found if found or (names and names is not _TEXT) else [config]
    for key in keys:
        for section in sections:
            count = section.get(key)
            if isinstance(count, int) and not isinstance(count, bool) and count > 0:
                return count
    return None


def parts_of_layers(tensors: Iterable[str], tower: str, chosen: set[str]) -> dict[int, list[str]]:
    """What each layer of a tower holds: names without the tower and the number."""
    parts: dict[int, list[str]] = {}
    for name in tensors:
        found = tower_of(name)
        if name in chosen and found is not None and found[0] == tower:
            parts.setdefault(found[1], []).append(name.removeprefix(f"{tower}.{found[1]}."))
    return parts


def heads(tensors: Iterable[str]) -> list[str]:
    """What stands outside the towers: first parts of names."""
    return list(dict.fromkeys(name.split(".")[0] for name in tensors if tower_of(name) is None))
