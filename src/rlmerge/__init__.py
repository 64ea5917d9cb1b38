"""Merge RL-trained language models: plan, stream, and prove what survived.

The names below load what they need on first use; importing rlmerge alone is quick and needs no NumPy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rlmerge._version import __version__

if TYPE_CHECKING:
    from rlmerge.api import calibrate, merge, plan, tune, verify
    from rlmerge.inspection.inspect import inspect
    from rlmerge.merging import MergeResult
    from rlmerge.merging.state_dicts import merge_state_dicts
    from rlmerge.methods import Parameter, method
    from rlmerge.moe import assemble_moe
    from rlmerge.options import Options
    from rlmerge.recipe import Recipe, load_recipe

_HOMES = {
    "merge": "rlmerge.api",
    "plan": "rlmerge.api",
    "verify": "rlmerge.api",
    "inspect": "rlmerge.inspection.inspect",
    "merge_state_dicts": "rlmerge.merging.state_dicts",
    "MergeResult": "rlmerge.merging",
    "method": "rlmerge.methods",
    "Parameter": "rlmerge.methods",
    "assemble_moe": "rlmerge.moe",
    "Options": "rlmerge.options",
    "Recipe": "rlmerge.recipe",
    "load_recipe": "rlmerge.recipe",
    "tune": "rlmerge.api",
    "calibrate": "rlmerge.api",
}

__all__ = [
    "MergeResult",
    "Options",
    "Parameter",
    "Recipe",
    "__version__",
    "assemble_moe",
    "calibrate",
    "inspect",
    "load_recipe",
    "merge",
    "merge_state_dicts",
    "method",
    "plan",
    "tune",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'rlmerge' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
