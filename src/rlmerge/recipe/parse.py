"""From a tree to a checked recipe. Every problem is reported, not just the first."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Sequence

from rlmerge.errors import RecipeError, RequestError
from rlmerge.methods.method import Method
from rlmerge.recipe.chat import read_chat_template
from rlmerge.recipe.dtypes import canonical_dtype
from rlmerge.recipe.layout import Module
from rlmerge.recipe.listing import Listing, read_base
from rlmerge.recipe.model import Recipe
from rlmerge.recipe.parameters import read_settings
from rlmerge.recipe.problems import Problems
from rlmerge.recipe.reference import ModelRef
from rlmerge.recipe.tokenizer import read_tokenizer
from rlmerge.recipe.tree import Node, failure
from rlmerge.recipe.vocabulary import RECIPE_KEYS

Lookup = Callable[[str], Method]


def build(
    root: Node, origin: str | None, lookup: Lookup, *, stages: Collection[str] = (), from_file: bool = True
) -> Recipe:
    """The recipe of a tree; RecipeError with every problem when there is any.

    ``stages`` are the names of the other recipes of the file. What is not ``from_file`` was written for rlmerge: there,
    nothing is left to mergekit's habits of ignoring foreign keys and of averaging in a base that is not listed.
    """
    if "experts" in root.fields and "merge_method" not in root.fields:
        what = "this describes a mixture of experts, not a merge"
        raise failure(what, root.where, f"Build it with: rlmerge moe {shlex.quote(origin or 'FILE')} -o OUT")
    compat = root.fields.get("compat")
    lenient = compat is not None and compat.text == "mergekit"
    problems = Problems(lenient=lenient, strict=not from_file and not lenient, stages=stages)
    method = _read_method(root, lookup, problems)
    top = problems.fields(root, RECIPE_KEYS, "the recipe", method.names if method else ())
    top = {name: node for name, node in top.items() if node.value is not None}
    _check_compat(top.get("compat"), problems)
    base = read_base(top["base_model"], problems) if "base_model" in top else None
    shared = read_settings(top.get("parameters"), method, problems) if method else {}
    found = Listing(method, base, shared, problems, from_file, lambda node: _method_of(node, lookup, problems))
    modules = found.read(top, root)
    dtype, out_dtype = _read_dtype(top.get("dtype"), problems), _read_dtype(top.get("out_dtype"), problems, True)
    tokenizer = read_tokenizer(top, problems)
    named = _models(base.model if base else None, modules)
    template = read_chat_template(top.get("chat_template"), {model.identity for model in named}, problems)
    name = problems.text(top["name"], "`name`") if "name" in top else None
    if method is None or len(problems):
        raise RecipeError(problems.errors)
    return Recipe(
        method=method,
        base=base.model if base else _common_base(modules),
        modules=modules,
        parameters=shared,
        dtype=dtype,
        out_dtype=out_dtype,
        compat=problems.lenient,
        tokenizer=tokenizer,
        chat_template=template,
        name=name,
        warnings=problems.warnings,
        origin=origin,
    )


def _models(base: ModelRef | None, modules: Sequence[Module]) -> list[ModelRef]:
    return [*([base] if base else []), *(model for m in modules for each in m.slices for model in each.models)]


def _common_base(modules: Sequence[Module]) -> ModelRef | None:
    """The base that all slices name, if they do."""
    bases = [each.base for module in modules for each in module.slices]
    first = bases[0]
    return first if first and all(base and base.identity == first.identity for base in bases) else None


def _read_method(root: Node, lookup: Lookup, problems: Problems) -> Method | None:
    node = root.fields.get("merge_method")
    if node is None:
        if isinstance(root.value, dict):
            problems.add(root.where, "the recipe names no `merge_method`", "`rlmerge methods` lists them.")
        return None
    return _method_of(node, lookup, problems)


def _method_of(node: Node, lookup: Lookup, problems: Problems) -> Method | None:
    name = problems.text(node, "`merge_method`")
    try:
        return lookup(name) if name else None
    except RequestError as error:
        problems.add(node.where, error.what, error.hint)
        return None


def _check_compat(node: Node | None, problems: Problems) -> None:
    if node and node.text != "mergekit":
        problems.add(node.where, f"`compat` can only be `mergekit`, not '{node.text}'")


def _read_dtype(node: Node | None, problems: Problems, output: bool = False) -> str | None:
    """The canonical name of a float type, or what an ``output`` may be beside it; reports an unknown one."""
    text = problems.text(node, "a dtype") if node else None
    if node is None or text is None:
        return None
    try:
        return canonical_dtype(text, node.where, output=output)
    except RequestError as error:
        problems.add(node.where, error.what, error.hint)
        return None
