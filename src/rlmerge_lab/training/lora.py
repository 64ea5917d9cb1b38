"""Training a low-rank adapter in place of all weights, for language models on a small machine."""

from __future__ import annotations

import sys
from typing import Any

from rlmerge.extras import require

_SCALE = 2
"""α/r: what an adapter's product is multiplied by."""


def add_adapter(model: Any, rank: int) -> Any:
    """``model`` with a LoRA adapter of ``rank`` on every linear layer but the head, which alone is trained.

    The adapter is in float32, whatever type the model has, and changes nothing yet.
    """
    peft = require("peft")
    config = peft.LoraConfig(
        r=rank, lora_alpha=_SCALE * rank, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    return peft.get_peft_model(model, config)


def merge_adapter(model: Any) -> Any:
    """The model itself, its adapter's change added to its weights, if it has one."""
    return model.merge_and_unload() if _is_adapted(model) else model


def stored_weights(model: Any) -> dict[str, Any]:
    """The weights that ``merge_adapter`` would give, by name; ``model`` is left as it is."""
    if not _is_adapted(model):
        return dict(model.named_parameters())
    layer = require("peft.tuners.lora").LoraLayer
    own = model.get_base_model()
    found = {name.replace(".base_layer.", "."): value for name, value in own.named_parameters() if ".lora_" not in name}
    for name, module in own.named_modules():
        if isinstance(module, layer):
            weight = module.get_base_layer().weight.detach()
            found[f"{name}.weight"] = weight + module.get_delta_weight("default").detach().to(weight.dtype)
    return found


def _is_adapted(model: Any) -> bool:
    # What was never imported has made no model.
    peft = sys.modules.get("peft")
    return peft is not None and isinstance(model, peft.PeftModel)
