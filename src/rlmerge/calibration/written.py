"""The calibrated recipe as a file: ordinary YAML, with what its values rest on in comments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlmerge._version import __version__
from rlmerge.calibration.results import Divergence
from rlmerge.recipe import Recipe
from rlmerge.recipe.words import printable


def with_provenance(
    recipe: Recipe,
    parameter: str,
    groups: int,
    objective: Mapping[str, float],
    divergences: Sequence[Divergence],
    settings: Mapping[str, Any],
    versions: Mapping[str, str],
) -> str:
    """The recipe's text under comments; equal for equal runs, so there is no date."""
    whose = "the experts' own responses" if settings["responses"] == "sampled" else "the data's responses"
    lines = [
        f"rlmerge {__version__} calibrate: `{parameter}` fitted for {groups} {'group' if groups == 1 else 'groups'} of"
        " tensors",
        f"by sum of weight * KL(expert || merged), nats a token, on {whose}:",
        f"  {objective['given']:.6g} as the recipe was given, {objective['calibrated']:.6g} calibrated",
    ]
    for each in divergences:
        before, after = each.fitted["given"], each.fitted["calibrated"]
        lines.append(f"{each.role} {each.name}: {before:.6g} -> {after:.6g}, weight {each.weight:g}")
        if each.held_out:
            before, after = each.held_out["given"], each.held_out["calibrated"]
            lines.append(f"  {each.held_out_prompts} prompts held out: {before:.6g} -> {after:.6g}")
        lines.append(f"  {each.prompts} prompts, {each.tokens} tokens of {each.data}, sha256 {each.data_digest}")
    told = ("seed", "responses", "samples", "max_length", "max_new_tokens", "top", "ridge", "dtype")
    lines.append(", ".join(f"{name} {settings[name]}" for name in told))
    lines.append(", ".join(f"{name} {version}" for name, version in versions.items()))
    return "".join(f"# {printable(line)}\n" for line in lines) + recipe.text
