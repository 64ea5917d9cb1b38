"""A recipe as YAML again, in one spelling: what lock files and model cards carry."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import yaml

from rlmerge.recipe.chat import ChatTemplate
from rlmerge.recipe.layout import Module, Range, Slice, SliceSource
from rlmerge.recipe.partition import gives_every_value
from rlmerge.recipe.reference import ModelRef
from rlmerge.recipe.setting import Setting
from rlmerge.recipe.tokenizer import ModelToken, TokenizerSpec, TokenSpec, Zero

if TYPE_CHECKING:
    from rlmerge.recipe.model import Recipe


def to_yaml(recipe: Recipe) -> str:
    """The recipe's canonical text, in ASCII (PyYAML loses U+0085 otherwise); reading it gives an equal recipe.

    Of a recipe that names other recipes, that holds for the text of all of them together.
    """
    return _dump(plain(recipe))


def to_yaml_documents(recipes: Sequence[Recipe]) -> str:
    """The canonical text of the recipes of one file."""
    return "---\n".join(to_yaml(recipe) for recipe in recipes)


def plain(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain data, which reads back as ``text`` does."""
    document: dict[str, Any] = {"name": recipe.name} if recipe.name else {}
    document["merge_method"] = recipe.method.name
    if recipe.base:
        document["base_model"] = plain_model(recipe.base)
    if recipe.modules[0].name is None:
        document |= _form(recipe, recipe.modules[0])
    else:
        document["modules"] = {m.name: _module(recipe, m) for m in recipe.modules}
    document |= _parameters(recipe.parameters)
    optional = {
        "dtype": recipe.dtype,
        "out_dtype": recipe.out_dtype,
        "compat": "mergekit" if recipe.compat else None,
        "tokenizer": _tokenizer(recipe.tokenizer) if recipe.tokenizer else None,
        "chat_template": _template(recipe.chat_template) if recipe.chat_template else None,
    }
    return document | {key: value for key, value in optional.items() if value is not None}


def _module(recipe: Recipe, module: Module) -> dict[str, Any]:
    method = {"merge_method": module.method.name} if module.method else {}
    return method | _form(recipe, module) | _parameters(module.parameters)


def _form(recipe: Recipe, module: Module) -> dict[str, Any]:
    """``models`` where every model takes part whole and as that form would have it, else ``slices``."""
    first = module.slices[0]
    whole = module.is_whole and not first.parameters and first.base == recipe.base
    if not whole or _is_spectator(recipe, module) or not (first.sources or module.name):
        return {"slices": [_slice(recipe, module, each) for each in module.slices]}
    if not first.sources and first.base:
        return {"models": [{"model": plain_model(first.base)}]}
    return {"models": [_source(source) for source in first.sources]}


def _is_spectator(recipe: Recipe, module: Module) -> bool:
    """Whether a base takes no part that ``models`` would average in; unlisted in a slice it never does."""
    method, base = recipe.method_of(module), recipe.base
    if base is None or method.base != "ignored" or method.max_experts == 1:
        return False
    listed = base.identity in {source.model.identity for source in module.slices[0].sources}
    levels = (module.parameters, *(() if module.method else (recipe.parameters,)))
    return not listed and gives_every_value(method, levels)


def _slice(recipe: Recipe, module: Module, part: Slice) -> dict[str, Any]:
    sources = [_source(source) for source in part.sources]
    if part.base and recipe.method_of(module).base != "ignored":
        sources.insert(0, {"model": plain_model(part.base), **_range(part.base_range)})
    other = {"base_model": plain_model(part.base)} if part.base and part.base != recipe.base else {}
    return {"sources": sources, **other, **_parameters(part.parameters)}


def _source(source: SliceSource) -> dict[str, Any]:
    model = {"model": plain_model(source.model), **_range(source.layer_range)}
    return {**model, **source.inputs, **_parameters(source.parameters)}


def _range(bounds: Range | None) -> dict[str, Any]:
    return {"layer_range": list(bounds)} if bounds else {}


def _parameters(settings: Mapping[str, Setting]) -> dict[str, Any]:
    return {"parameters": {name: setting.plain() for name, setting in settings.items()}} if settings else {}


def plain_model(model: ModelRef, words: Collection[str] = ()) -> str | dict[str, Any]:
    """As text, or spelled out where text could be read otherwise: as a revision, an adapter, or one of ``words``."""
    text = str(model)
    return text if text not in words and _reads_back(model, text) else _spelled_out(model)


def _reads_back(model: ModelRef, text: str) -> bool:
    parts = [model, *([model.adapter] if model.adapter else [])]
    if any(set("@+") & set(part.reference + (part.revision or "")) for part in parts):
        return model.stage and model.adapter is None
    try:
        return ModelRef.parse(text, {model.reference} if model.stage else ()) == model
    except ValueError:
        return False


def _spelled_out(model: ModelRef) -> dict[str, Any]:
    return {"model": _part(model)} | ({"lora": _part(model.adapter)} if model.adapter else {})


def _part(model: ModelRef) -> dict[str, str]:
    return {"path": model.reference} | ({"revision": model.revision} if model.revision else {})


def _tokenizer(spec: TokenizerSpec) -> dict[str, Any]:
    found: dict[str, Any] = {"source": spec.source if isinstance(spec.source, str) else _vocabulary(spec.source)}
    if spec.tokens:
        found["tokens"] = {token: _token(each) for token, each in spec.tokens.items()}
    return found | ({"pad_to_multiple_of": spec.pad_to_multiple_of} if spec.pad_to_multiple_of else {})


def _vocabulary(model: ModelRef) -> str | dict[str, Any]:
    return plain_model(model, ("union", "base"))


def _token(spec: TokenSpec) -> dict[str, Any]:
    row: dict[str, Any] = {}
    if isinstance(spec.source, ModelRef):
        row = {"source": plain_model(spec.source)}
    elif isinstance(spec.source, Zero):
        row = {"source": {"kind": "zero"}}
    elif isinstance(spec.source, ModelToken):
        which = {"token": spec.source.token} if spec.source.token is not None else {"token_id": spec.source.token_id}
        row = {"source": {"kind": "model_token", "model": plain_model(spec.source.model), **which}}
    return row | ({"force": True} if spec.force else {})


def _template(template: ChatTemplate) -> str | dict[str, Any]:
    """Jinja text and names as they are; a model in the spelling that is never taken for either."""
    return template.text if template.model is None else _spelled_out(template.model)


def _dump(document: dict[str, Any]) -> str:
    return yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=100)
