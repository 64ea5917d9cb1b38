"""The config.json of a model whose layers are some of another's, in another order or number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlmerge.checkpoint.config import TEXT_SECTIONS, Config
from rlmerge.errors import CheckpointError

_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "depth", "num_decoder_layers", "decoder_layers",
           "num_encoder_layers", "encoder_layers")  # fmt: skip
"""Keys under which architectures keep their number of layers."""

_INDICES = ("mlp_only_layers", "moe_layers", "attn_layer_indices", "full_attn_idxs", "cross_attention_layers",
            "fullatt_block_indexes", "global_attn_indexes", "deepstack_visual_indexes", "hybrid_layer_ids",
            "full_attention_layers")  # fmt: skip
"""Lists that name layers by their number."""

_PER_LAYER = ("block_types", "no_rope_layers", "num_query_heads", "num_kv_heads", "ffn_multipliers",
              "intermediate_size", "activation_sparsity_pattern", "hybrid_override_pattern", "attention_chunk_size",
              "moe_layer_freq", "sliding_window", "attention_types", "indexer_types")  # fmt: skip
"""Lists (or texts) with an entry for every layer, beside those whose name says ``layer``."""

_PERIODS = ("attn_layer_period", "expert_layer_period", "full_attention_interval", "global_attn_every_n_layers",
            "moe_layer_freq", "moe_layer_frequency")  # fmt: skip
"""Rules by a layer's number modulo a period, which no list can replace."""

_PATTERNS = {"gemma2": 2, "gemma3_text": 6, "gemma3": 6, "cohere2": 4}
"""Model types whose layers slide but for every n-th, where config.json leaves it to the layer's number."""


def reindexed(config: Config, layers: Sequence[int], prefix: str = "") -> dict[str, Any]:
    """The configuration of a model whose layer i is ``layers[i]`` of the model that ``config`` describes.

    ``prefix`` is what stands before the layer number in the names of the tensors (``model.layers``,
    ``model.visual.blocks``): it says which part of a model of several is meant.
    CheckpointError if no number of layers is found, a layer lies outside, or the order cannot be described.
    """
    path = _part(config, prefix)
    section = _at(config, path)
    key = _count_key(section, prefix)
    count = section[key]
    outside = next((index for index in layers if not 0 <= index < count), None)
    if outside is not None:
        what = f"layer {outside} does not exist: config.json says {key} {count}"
        raise CheckpointError(what, hint="Give ranges within the layers of the model.")
    edited = _section(dict(section), count, layers, key)
    result = _with(config, path, edited)
    if path and config.get(key) == count and path[0] in TEXT_SECTIONS:
        result[key] = len(layers)
    return result


def layer_kinds(config: Config, prefix: str = "") -> tuple[tuple[Any, ...], ...]:
    """What config.json says of each layer: models can be merged layer by layer where these agree."""
    section = _at(config, _part(config, prefix))
    count = section[_count_key(section, prefix)]
    full = _explicit(dict(section), count)
    for key in _PERIODS:
        if isinstance(full.get(key), int) and full[key] > 1:
            full[f"{key} layer"] = [i % full[key] for i in range(count)]
    lists = [full[key] for key in sorted(full) if _is_per_layer(key, full[key], count)]
    named = [set(full[key]) for key in _INDICES if _is_indices(full.get(key))]
    dense = full.get("first_k_dense_replace")
    return tuple(
        (*(values[i] for values in lists), *(i in found for found in named), isinstance(dense, int) and i < dense)
        for i in range(count)
    )


def _section(section: dict[str, Any], count: int, layers: Sequence[int], count_key: str) -> dict[str, Any]:
    section = _explicit(section, count)
    for key, value in section.items():
        if key in _INDICES and _is_indices(value):
            section[key] = [new for new, old in enumerate(layers) if old in value]
        elif _is_per_layer(key, value, count):
            picked = [value[old] for old in layers]
            section[key] = "".join(picked) if isinstance(value, str) else picked
    _check_periods(section, layers)
    dense = section.get("first_k_dense_replace")
    if isinstance(dense, int):
        section["first_k_dense_replace"] = _leading([old < dense for old in layers])
    section[count_key] = len(layers)
    return section


def _explicit(section: dict[str, Any], count: int) -> dict[str, Any]:
    """With lists for what depends on a layer's number by a rule, so that it can follow the layer."""
    types, sliding = section.get("layer_types"), section.get("use_sliding_window")
    every = section.get("sliding_window_pattern", section.get("_sliding_window_pattern"))
    every = every if isinstance(every, int) else _PATTERNS.get(str(section.get("model_type")))
    first = section.get("max_window_layers")
    if types is None and sliding is True and isinstance(first, int):
        section["layer_types"] = [_type(i >= first) for i in range(count)]
    elif types is None and every and sliding is not False:
        section["layer_types"] = [_type((i + 1) % every != 0) for i in range(count)]
    step, dense = section.get("decoder_sparse_step"), section.get("mlp_only_layers")
    if isinstance(step, int) and step > 1:
        listed: list[int] = dense if isinstance(dense, list) else []
        section["mlp_only_layers"] = [i for i in range(count) if i in listed or (i + 1) % step]
        section["decoder_sparse_step"] = 1
    step = section.get("interleave_moe_layer_step")
    if isinstance(step, int) and step > 0 and section.get("moe_layers") is None:
        section["moe_layers"] = list(range(step - 1, count, step))
    return section


def _check_periods(section: Mapping[str, Any], layers: Sequence[int]) -> None:
    for key in _PERIODS:
        period = section.get(key)
        listed = key == "full_attention_interval" and isinstance(section.get("layer_types"), list)
        if not isinstance(period, int) or period < 2 or listed:
            continue
        moved = next(((new, old) for new, old in enumerate(layers) if new % period != old % period), None)
        if moved is not None:
            what = (
                f"{key} {period} fixes the kind of a layer by its number, so layer {moved[1]} cannot become {moved[0]}"
            )
            raise CheckpointError(what, hint=f"Move layers by multiples of {period} only.")


def _type(sliding: bool) -> str:
    return "sliding_attention" if sliding else "full_attention"


def _leading(marked: Sequence[bool]) -> int:
    """How many layers at the beginning are marked; CheckpointError if one comes after an unmarked one."""
    number = sum(marked)
    if not all(marked[:number]):
        what = "first_k_dense_replace makes the first layers dense, but here a dense layer follows a sparse one"
        raise CheckpointError(what, hint="Keep the model's dense layers in front.")
    return number


def _is_per_layer(key: str, value: Any, count: int) -> bool:
    if key in _INDICES or not isinstance(value, list | str) or len(value) != count:
        return False
    return key in _PER_LAYER or (isinstance(value, list) and "layer" in key)


def _is_indices(value: Any) -> bool:
    return isinstance(value, list) and all(type(index) is int for index in value)


def _part(config: Config, prefix: str) -> tuple[str, ...]:
    """Path to the section that describes the layers under ``prefix``."""
    sections = [name for name, value in config.items() if isinstance(value, dict) and name.endswith("_config")]
    for name in sections:
        what = name.removesuffix("_config")
        marks = {"vision": ("vis",), "text": ("language_model", "text")}.get(what, (what,))
        if what != "text" and any(mark in prefix for mark in marks):
            inner = _part(config[name], prefix.replace(what, "", 1))
            return (name, *inner)
    for name in TEXT_SECTIONS:
        if isinstance(config.get(name), dict):
            return (name,)
    return ()


def _at(config: Config, path: Sequence[str]) -> Config:
    for name in path:
        config = config[name]
    return config


def _with(config: Config, path: Sequence[str], section: Mapping[str, Any]) -> dict[str, Any]:
    if not path:
        return dict(section)
    return {**config, path[0]: _with(config[path[0]], path[1:], section)}


def _count_key(section: Config, prefix: str) -> str:
    """The key of the number of layers; an encoder's or decoder's own where the prefix names one."""
    tower = next((word for word in ("encoder", "decoder") if word in prefix), "")
    known = [key for key in _COUNTS if type(section.get(key)) is int and section[key] > 0]
    preferred = [key for key in known if tower and tower in key]
    other = [key for key in known if not tower or ("encoder" not in key and "decoder" not in key)]
    if preferred or other:
        return (preferred or other)[0]
    what = "config.json names no number of layers" + (f" for '{prefix}'" if prefix else "")
    raise CheckpointError(what, hint=f"One of {', '.join(_COUNTS[:4])} is expected there.")
