"""Where a merge differs from what mergekit makes of the same recipe, as far as the recipe itself shows it.

Measured on mergekit 0.1.5 as a separate program; `compat: mergekit` takes back what it can.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from rlmerge.frozen import frozen
from rlmerge.recipe.chat import ChatTemplate
from rlmerge.recipe.layout import Slice
from rlmerge.recipe.model import Recipe
from rlmerge.recipe.parameters import default_value
from rlmerge.recipe.problems import as_switch
from rlmerge.recipe.reference import ModelRef
from rlmerge.recipe.tree import Node

MERGEKIT_METHODS = frozenset(
    (
        "linear", "slerp", "nuslerp", "multislerp", "karcher", "task_arithmetic", "ties", "dare_linear", "dare_ties",
        "della", "della_linear", "breadcrumbs", "breadcrumbs_ties", "sce", "ram", "ramplus_tl", "model_stock",
        "nearswap", "arcee_fusion", "passthrough",
    )
)  # fmt: skip

_IN_FLOAT32 = frozenset(("linear", "slerp", "passthrough"))
_NEEDS_WEIGHT = MERGEKIT_METHODS - {
    "slerp", "karcher", "sce", "ram", "ramplus_tl", "model_stock", "nearswap", "arcee_fusion", "passthrough",
}  # fmt: skip
_TIES = "equal magnitudes at the threshold are all kept; mergekit keeps an arbitrary part of them"
_MASK = "which entries are dropped depends on seed, expert, tensor name and position alone; mergekit draws other ones"
_OF_METHOD = {
    "ties": _TIES,
    "breadcrumbs": _TIES,
    "breadcrumbs_ties": _TIES,
    "dare_linear": _MASK,
    "dare_ties": _MASK,
    "della": _MASK,
    "della_linear": _MASK,
}


@frozen(slots=True)
class Finding:
    """What is to be said of one line of a recipe (None: of no line in particular)."""

    line: int | None
    kind: Literal["same", "differs", "no effect"]
    why: str


def differences(recipe: Recipe, root: Node) -> Iterator[Finding]:
    """What differs, of the recipe that was read from ``root``."""
    for line, why in (
        *_of_method(recipe, root),
        *_of_arithmetic(recipe, root),
        *_of_values(recipe),
        *_of_modules(recipe, root),
        *_of_models(recipe, root),
        *_of_output(recipe, root),
    ):
        yield Finding(line, "differs", why)


Lines = Iterator[tuple[int | None, str]]


def _line(root: Node, key: str) -> int | None:
    return root.fields[key].line if key in root.fields else root.line


def _of_method(recipe: Recipe, root: Node) -> Lines:
    method, line = recipe.method, _line(root, "merge_method")
    if method.name not in MERGEKIT_METHODS:
        yield line, f"mergekit has no method '{method.name}'"
        return
    if method.name in _OF_METHOD:
        yield line, _OF_METHOD[method.name]
    for note in method.notes:
        if "mergekit" in note and not method.compat:
            yield line, note
    parameters = root.fields["parameters"].fields if "parameters" in root.fields else {}
    for name, theirs in method.compat.items():
        ours = default_value(method, method.parameter(name), recipe.compat)
        given = parameters.get(name)
        left_open = name not in recipe.parameters or (given is not None and as_switch(given.value) is True)
        if ours != theirs and left_open:
            why = f"{name} is {_spelled(ours)}; `{name}: {_spelled(theirs)}` or `compat: mergekit` gives mergekit's"
            yield given.line if given else line, why


def _spelled(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _of_arithmetic(recipe: Recipe, root: Node) -> Lines:
    if recipe.method.name not in MERGEKIT_METHODS:
        return
    if "dtype" in root.fields and recipe.dtype in ("bfloat16", "float16"):
        yield (
            _line(root, "dtype"),
            (f"float32 arithmetic on the models as they are, rounded to {recipe.dtype} once; mergekit rounds first"),
        )
    elif "dtype" not in root.fields and recipe.method.name not in _IN_FLOAT32:
        yield _line(root, "merge_method"), "computed in float32; mergekit computes in the type of the models"


def _of_values(recipe: Recipe) -> Lines:
    """Values that mergekit asks for, and filters that mean more than parts of a name."""
    if any(rule.is_router for rule in recipe.rules):
        yield None, "`filter: router` speaks of all routers; in mergekit, of tensors with `router` in their names"
    if recipe.method.name not in _NEEDS_WEIGHT:
        return
    for module, part in recipe.slices:
        if any("weight" in level for level in (part.parameters, module.parameters, recipe.parameters)):
            continue
        for source in part.sources:
            if "weight" not in source.parameters:
                yield source.line, f"'{source.model}' has no weight: 1 here, an error in mergekit"


def _of_modules(recipe: Recipe, root: Node) -> Lines:
    for module in recipe.modules:
        if module.method:
            why = f"module '{module.name}' is merged by {module.method.name}; mergekit has one method for all modules"
            yield root.fields["modules"].fields[module.name or ""].fields["merge_method"].line, why


def _of_models(recipe: Recipe, root: Node) -> Lines:
    if recipe.base is None and not recipe.tokenizer:
        yield _line(root, "merge_method"), "config and tokenizer are those of the first model; in mergekit, of any"
    for module in recipe.modules:
        first, last = module.slices[0], module.slices[-1]
        if _count(last) > _count(first):
            why = f"final norm and head are merged of all {_count(last)} models; mergekit uses only {_count(first)}"
            yield last.line, why
        for part in module.slices:
            listed = [(model.identity, source.layer_range) for source in part.sources for model in [source.model]]
            if len({identity for identity, _ in listed}) < len(listed):
                yield part.line, "one model takes part twice; mergekit refuses that"
            yield from _of_adapters(part)


def _count(part: Slice) -> int:
    return len(part.sources) + (part.base is not None and part.base not in {s.model for s in part.sources})


def _of_adapters(part: Slice) -> Lines:
    for source in part.sources:
        if source.model.adapter:
            yield source.line, _ADAPTER


_ADAPTER = "the adapter is applied exactly, tile by tile; mergekit rounds the adapted model to its type first"


def _of_output(recipe: Recipe, root: Node) -> Lines:
    spec = recipe.tokenizer
    key = "tokenizer" if "tokenizer" in root.fields else "tokenizer_source"
    if spec and spec.source == "union":
        yield (
            _line(root, key),
            "tokens are added in the order of the recipe; in mergekit their ids differ from run to run",
        )
    elif spec and (spec.source == "base" or isinstance(spec.source, ModelRef)) and not recipe.compat:
        yield _line(root, key), "where the vocabulary stays the base's, so do its rows; mergekit cuts spare rows off"
    template = recipe.chat_template
    if template:
        why = _of_template(template)
        if why:
            yield _line(root, "chat_template"), why


def _of_template(template: ChatTemplate) -> str | None:
    if template.kind == "built_in":
        return f"our own text of '{template.text}', whose wording differs from mergekit's"
    if template.kind == "auto":
        return "of templates that are equally frequent the first one's is taken; mergekit takes any"
    return None
