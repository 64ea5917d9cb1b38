"""What a PEFT adapter's ``adapter_config.json`` says, checked against what this reader knows how to apply."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlmerge.checkpoint import strictjson
from rlmerge.checkpoint.paths import inside, read_bytes
from rlmerge.errors import CheckpointError
from rlmerge.frozen import frozen

NAME = "adapter_config.json"

_MAX_CONFIG = 16 * 2**20
_MAX_PATTERN = 500
_MAX_REPEATS = 3

_READ = {
    "peft_type",
    "base_model_name_or_path",
    "revision",
    "task_type",
    "r",
    "lora_alpha",
    "rank_pattern",
    "alpha_pattern",
    "use_rslora",
    "use_dora",
    "fan_in_fan_out",
    "init_lora_weights",
    "target_modules",
    "target_parameters",
    "trainable_token_indices",
}
_IDLE = {
    "alpha",
    "auto_mapping",
    "bias",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "lora_bias",
    "lora_dropout",
    "lora_dtype",
    "lora_ga_config",
    "lorap_emb_lr",
    "lorap_lr_ratio",
    "loftq_config",
    "megatron_core",
    "modules_to_save",
    "peft_version",
    "qalora_group_size",
    "runtime_config",
    "unsloth_fixed",
}
"""Settings of training, or that say again what the tensors' names say; no value of them changes the weights."""

_PLAIN_STARTS = ("gaussian", "eva", "orthogonal", "mica")
_OTHER_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Initialisations after which the adapter belongs to a changed copy of the base."""


@frozen
class AdapterConfig:
    """The settings that decide what the tensors of an adapter mean.

    ``base`` is the model that it was trained on, as its author called it. ``alphas`` overrides ``alpha`` where a
    pattern matches. ``tokens`` lists trained rows by embedding module; "" is the input embedding, whatever its name.
    """

    where: str
    base: str | None
    task: str | None
    alpha: float
    alphas: tuple[tuple[re.Pattern[str], float], ...]
    rslora: bool
    dora: bool
    fan_in_fan_out: bool
    parameters: tuple[str, ...]
    tokens: Mapping[str, tuple[int, ...]] | None

    def scale(self, name: str, rank: int) -> float:
        """What the product of rank ``rank`` of module or parameter ``name`` is multiplied with: α/r, or α/√r."""
        alpha = next((alpha for pattern, alpha in self.alphas if pattern.match(name)), self.alpha)
        return alpha / math.sqrt(rank) if self.rslora else alpha / rank

    def rows(self, module: str) -> tuple[int, ...]:
        """The rows of embedding ``module`` that were trained; CheckpointError if they are not listed."""
        listed = self.tokens or {}
        found = next((rows for name, rows in listed.items() if not name or f".{module}".endswith(f".{name}")), None)
        if found is None:
            raise CheckpointError(f"trainable_token_indices lists no rows of {module}", where=self.where, hint=_AGAIN)
        return found

    def is_parameter(self, name: str) -> bool:
        """Whether ``name`` is one of ``target_parameters``, PEFT's way to adapt what is no module's weight."""
        return any(f".{name}".endswith(f".{target}") for target in self.parameters)


def read_adapter_config(root: Path) -> AdapterConfig:
    """The configuration in ``root``.

    CheckpointError if it is missing or malformed, of a method other than LoRA, of an initialisation that changed the
    base, or if it uses a setting that is not known here.
    """
    path = inside(root, NAME)
    where = str(path)
    content = strictjson.parse(read_bytes(path, _MAX_CONFIG), where)
    if not isinstance(content, dict):
        raise CheckpointError("must hold a JSON object", where=where, hint=_AGAIN)
    _check_method(content, where)
    return AdapterConfig(
        where=where,
        base=_text(content, "base_model_name_or_path", where),
        task=_text(content, "task_type", where),
        alpha=_alpha(content.get("lora_alpha", 8), "lora_alpha", where),
        alphas=tuple(
            (_pattern(pattern, where), _alpha(alpha, f"alpha_pattern of {pattern!r}", where))
            for pattern, alpha in _mapping(content.get("alpha_pattern"), "alpha_pattern", where).items()
        ),
        rslora=_switch(content, "use_rslora", where),
        dora=_switch(content, "use_dora", where),
        fan_in_fan_out=_switch(content, "fan_in_fan_out", where),
        parameters=_names(content.get("target_parameters"), "target_parameters", where),
        tokens=_tokens(content.get("trainable_token_indices"), where),
    )


def _check_method(content: Mapping[str, Any], where: str) -> None:
    method = content.get("peft_type")
    if method != "LORA":
        what = f"is a {method} adapter" if isinstance(method, str) else "names no peft_type"
        hint = "Only LoRA and DoRA adapters can be merged; merge this one into its base with PEFT first."
        raise CheckpointError(what, where=where, hint=hint)
    start = content.get("init_lora_weights", True)
    lowered = start.lower() if isinstance(start, str) else ""
    if lowered.startswith(_OTHER_BASE):
        what = f"was initialised by {start}, which changed the base model that the adapter belongs to"
        hint = "Convert it: save_pretrained(…, path_initial_model_for_weight_conversion=…), then use the original base."
        raise CheckpointError(what, where=where, hint=hint)
    if lowered not in ("", "true", "false", *_PLAIN_STARTS) or (lowered == "" and not isinstance(start, bool | None)):
        what = f"was initialised by {start!r}, which this reader does not know"
        raise CheckpointError(what, where=where, hint="Merge it into its base with the PEFT version that wrote it.")
    for name, value in content.items():
        if name not in _READ and name not in _IDLE and value not in (None, False, "", [], {}):
            what = f"uses {name}, which this reader does not know how to apply"
            raise CheckpointError(what, where=where, hint="Merge it into its base with the PEFT version that wrote it.")


def _alpha(value: Any, name: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise CheckpointError(f"{name} must be a number, not {value!r}", where=where, hint=_AGAIN)
    if value == 0:
        hint = "Write the alpha of the training run there; some converters lose it."
        raise CheckpointError(f"{name} is 0, so that the adapter would change nothing", where=where, hint=hint)
    return float(value)


def _pattern(pattern: str, where: str) -> re.Pattern[str]:
    """``pattern`` as PEFT matches it: against the end of a module's name, from a dot or its beginning on.

    A pattern comes with the adapter, and matching some takes forever; those with many or nested repeats are refused.
    """
    plain = re.sub(r"\\.", "", pattern)
    repeats = len(re.findall(r"[*+]|\{\d*,", plain))
    if len(pattern) > _MAX_PATTERN or repeats > _MAX_REPEATS or re.search(r"\)[*+{]", plain):
        hint = "List the modules' names instead, or patterns with at most three repeats and none of a group."
        raise CheckpointError(f"the pattern {pattern[:80]!r} is too complex", where=where, hint=hint)
    try:
        return re.compile(rf"(.*\.)?({pattern})$")
    except (re.error, OverflowError) as error:
        raise CheckpointError(f"{pattern!r} is no valid pattern ({error})", where=where, hint=_AGAIN) from None


def _switch(content: Mapping[str, Any], name: str, where: str) -> bool:
    value = content.get(name)
    if not isinstance(value, bool | None):
        raise CheckpointError(f"{name} must be true or false, not {value!r}", where=where, hint=_AGAIN)
    return bool(value)


def _text(content: Mapping[str, Any], name: str, where: str) -> str | None:
    value = content.get(name)
    if not isinstance(value, str | None):
        raise CheckpointError(f"{name} must be text, not {value!r}", where=where, hint=_AGAIN)
    return value or None


def _mapping(value: Any, name: str, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict | None):
        raise CheckpointError(f"{name} must map module names to numbers", where=where, hint=_AGAIN)
    return value or {}


def _names(value: Any, name: str, where: str) -> tuple[str, ...]:
    if not isinstance(value, list | None) or not all(isinstance(entry, str) for entry in value or ()):
        raise CheckpointError(f"{name} must be a list of names", where=where, hint=_AGAIN)
    return tuple(value or ())


def _tokens(value: Any, where: str) -> Mapping[str, tuple[int, ...]] | None:
    if value is None:
        return None
    listed: Mapping[str, Sequence[Any]] = value if isinstance(value, dict) else {"": value}
    if not all(isinstance(rows, list) and all(_is_index(row) for row in rows) for rows in listed.values()):
        what = "trainable_token_indices must be a list of row numbers, or map modules to such lists"
        raise CheckpointError(what, where=where, hint=_AGAIN)
    if any(len(set(rows)) < len(rows) for rows in listed.values()):
        raise CheckpointError("trainable_token_indices lists a row twice", where=where, hint=_AGAIN)
    return {name: tuple(rows) for name, rows in listed.items()}


def _is_index(value: Any) -> bool:
    # bool is a subclass of int, hence the exact type.
    return type(value) is int and value >= 0


_AGAIN = "Save the adapter again with a current PEFT, or restore the original file."
