"""The keys of the recipe language: where each belongs, and what mergekit's recipes hold beside them."""

from __future__ import annotations

RECIPE_KEYS = (
    "name", "merge_method", "base_model", "models", "slices", "modules", "parameters", "dtype", "out_dtype",
    "tokenizer_source", "tokenizer", "chat_template", "compat",
)  # fmt: skip
MODULE_KEYS = ("merge_method", "models", "slices", "parameters")
SLICE_KEYS = ("sources", "base_model", "parameters", "residual_weight")
MODEL_KEYS = ("model", "path", "revision", "lora", "override_architecture")
TOKENIZER_KEYS = ("source", "tokens", "pad_to_multiple_of")

_TOP = "at the top level of the recipe"
PLACES = {
    "merge_method": f"{_TOP} or in a module",
    "base_model": f"{_TOP} or in a slice",
    "models": f"{_TOP} or in a module",
    "slices": f"{_TOP} or in a module",
    "modules": _TOP,
    "parameters": "at the top level, in a module or slice, or beside a `model:`",
    "dtype": _TOP,
    "out_dtype": _TOP,
    "tokenizer_source": _TOP,
    "tokenizer": _TOP,
    "chat_template": _TOP,
    "compat": _TOP,
    "sources": "in an entry of `slices`",
    "layer_range": "beside a `model:` under `sources` of a slice",
    "tokens": "under `tokenizer:`",
    "pad_to_multiple_of": "under `tokenizer:`",
    "filter": "in a rule of a parameter: a list of {filter, value}",
}
"""Keys with one meaning, and where they belong; written elsewhere, they would silently do nothing."""

_MERGEKIT = frozenset(
    (
        "weight", "density", "normalize", "lambda", "rescale", "int8_mask", "gamma", "epsilon", "t", "scale",
        "select_topk", "filter_wise", "nuslerp_flatten", "nuslerp_row_wise", "normalize_weights", "eps", "max_iter",
        "tol", "r", "alpha", "smooth", "allow_negative_weights", "embed_slerp", "residual_weight",
    )
)  # fmt: skip


def names_mergekit(name: str) -> bool:
    """Whether recipes for mergekit, its forks or its older versions use this name, so that it is no typo of another."""
    return name in _MERGEKIT


def is_seed(name: str) -> bool:
    """Whether a key asks for a seed, which is an option of a run and not of a recipe."""
    return name in ("seed", "random_seed", "random-seed")
