"""Which tensors a recipe means by the name of a module."""

from __future__ import annotations

from collections.abc import Sequence

from .towers import tower_of

_ALIASES = {
    "text_decoder": ("language_model", "text_model", "decoder", "model"),
    "decoder": ("decoder", "text_model", "language_model"),
    "multi_modal_projector": ("multi_modal_projector", "mm_projector", "projector", "connector"),
    "vision_tower": ("vision_tower", "visual", "vision_model", "vision_encoder"),
    "vision_model": ("vision_model", "visual", "vision_tower"),
    "encoder": ("encoder",),
    "shared": ("shared",),
}
"""mergekit's names of modules, and parts of tensor names that they stand for."""


def module_prefix(name: str, tensors: Sequence[str], towers: Sequence[str]) -> str | None:
    """The prefix of the tensors of a module: '' for the whole or the rest of a model, None if there is none.

    ``name`` may be the prefix itself, a part of it that only one has, or mergekit's name.
    """
    if name in ("default", ""):
        return ""
    if any(tensor == name or tensor.startswith(f"{name}.") for tensor in tensors):
        return name
    prefixes = dict.fromkeys(p for tensor in tensors for p in _prefixes(tensor))
    for part in _ALIASES.get(name, (name,)):
        exact = [p for p in prefixes if p.rpartition(".")[2] == part]
        if exact:
            return min(exact, key=len)
    if name == "text_decoder":
        return ""
    holding = [tower for tower in towers if name in tower]
    return holding[0] if len(holding) == 1 else None


def _prefixes(tensor: str) -> list[str]:
    """Prefixes of a tensor's name before its layers."""
    found = tower_of(tensor)
    parts = (found[0] if found else tensor.rpartition(".")[0]).split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]
