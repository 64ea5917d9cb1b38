"""A recipe as YAML again, in one spelling: what lock files and model cards carry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import yaml

from rlmerge.recipe.reference import ModelRef
from rlmerge.recipe.setting import Setting

if TYPE_CHECKING:
    from rlmerge.recipe.model import Recipe


def to_yaml(recipe: Recipe) -> str:
    """The recipe's canonical text, in ASCII (PyYAML loses U+0085 otherwise); reading it gives an equal recipe."""
    return yaml.safe_dump(_plain(recipe), sort_keys=False, default_flow_style=None, width=100)


def _plain(recipe: Recipe) -> dict[str, Any]:
    document: dict[str, Any] = {"merge_method": recipe.method.name}
    if recipe.base:
        document["base_model"] = _model(recipe.base)
    models: list[dict[str, Any]] = [
        {"model": _model(source.model), **source.inputs, **_parameters(source.parameters)} for source in recipe.experts
    ]
    if recipe.depth is None:
        document["models"] = models
    else:
        sources = [{**model, "layer_range": [0, recipe.depth]} for model in models]
        document["slices"] = [{"sources": sources}]
    document |= _parameters(recipe.parameters)
    optional = {
        "dtype": recipe.dtype,
        "out_dtype": recipe.out_dtype,
        "compat": "mergekit" if recipe.compat else None,
        "tokenizer_source": recipe.tokenizer_source,
        "chat_template": recipe.chat_template,
    }
    return document | {key: value for key, value in optional.items() if value is not None}


def _model(model: ModelRef) -> str | dict[str, str]:
    """As text, or as a mapping where text could be read as a revision or an adapter."""
    safe = not set("@+") & set(model.reference + (model.revision or ""))
    if safe and ModelRef.parse(str(model)) == model:
        return str(model)
    return {"path": model.reference} | ({"revision": model.revision} if model.revision else {})


def _parameters(settings: Mapping[str, Setting]) -> dict[str, Any]:
    return {"parameters": {name: setting.plain() for name, setting in settings.items()}} if settings else {}
