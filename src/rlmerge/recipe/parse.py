"""From a tree to a checked recipe. Every problem is reported, not just the first."""

from __future__ import annotations

from collections.abc import Callable

from rlmerge.errors import RecipeError, RequestError
from rlmerge.methods.method import Method
from rlmerge.recipe.model import Recipe, Source
from rlmerge.recipe.models import as_experts, check_count, check_inputs, read_listing
from rlmerge.recipe.output import read_chat_template, read_dtype, read_tokenizer
from rlmerge.recipe.parameters import Settings, read_settings, report_missing
from rlmerge.recipe.problems import Problems
from rlmerge.recipe.reference import read_model
from rlmerge.recipe.tree import Node

Lookup = Callable[[str], Method]

_KEYS = ("merge_method", "base_model", "models", "slices", "modules", "parameters", "dtype", "out_dtype",
         "tokenizer_source", "tokenizer", "chat_template", "compat")  # fmt: skip


def build(root: Node, origin: str | None, lookup: Lookup) -> Recipe:
    """The recipe of a tree; RecipeError with every problem when there is any."""
    problems = Problems()
    method = _read_method(root, lookup, problems)
    top = problems.fields(root, _KEYS, "the recipe", method.names if method else ())
    top = {name: node for name, node in top.items() if node.value is not None}
    listing = read_listing(top, root, method, problems)
    written_base = listing.base or top.get("base_model")
    base = read_model(written_base, problems) if written_base else None
    compat = _read_compat(top.get("compat"), problems)
    dtype, out_dtype = read_dtype(top.get("dtype"), problems), read_dtype(top.get("out_dtype"), problems)
    template = read_chat_template(top.get("chat_template"), problems)
    donor = base or (listing.entries[0].model if listing.entries else None)
    tokenizer = read_tokenizer(top, donor, problems)
    if method is None:
        raise RecipeError(problems.errors)

    shared = _read_shared(top.get("parameters"), listing.parameters, method, compat, problems)
    experts: list[Source] = []
    merged = as_experts(listing.entries, base, method, problems)
    check_inputs(method, merged, problems)
    for entry in merged:
        own = read_settings(entry.parameters, method, compat, "model", problems)
        experts.append(Source(entry.model, own, entry.node.line, entry.inputs))
    if listing.entries:
        check_count(method, base, len(experts), root.where, problems)
        report_missing(method, shared, [expert.parameters for expert in experts], root.where, compat, problems)
    if base and written_base:
        _check_spectator_base(method, base.identity, experts, shared, written_base, problems)
    problems.raise_if_any()
    warnings = tuple(problems.warnings)
    return Recipe(
        method, base, tuple(experts), shared, dtype, out_dtype, compat, template, tokenizer, listing.depth, warnings,
        origin,
    )  # fmt: skip


def _read_method(root: Node, lookup: Lookup, problems: Problems) -> Method | None:
    node = root.fields.get("merge_method")
    if node is None:
        if isinstance(root.value, dict):
            problems.add(root.where, "the recipe names no `merge_method`", "`rlmerge methods` lists them.")
        return None
    name = problems.text(node, "`merge_method`")
    try:
        return lookup(name) if name else None
    except RequestError as error:
        problems.add(node.where, error.what, error.hint)
        return None


def _read_compat(node: Node | None, problems: Problems) -> bool:
    if node and node.text != "mergekit":
        problems.add(node.where, f"`compat` can only be `mergekit`, not '{node.text}'")
    return node is not None


def _read_shared(top: Node | None, of_slice: Node | None, method: Method, compat: bool, problems: Problems) -> Settings:
    """Parameters for all models: a slice's win over the top level's, tensor by tensor."""
    outer = read_settings(top, method, compat, "recipe", problems)
    inner = read_settings(of_slice, method, compat, "recipe", problems)
    both = {name: setting.otherwise(outer[name]) for name, setting in inner.items() if name in outer}
    return outer | inner | both


def _check_spectator_base(
    method: Method, base: str, experts: list[Source], shared: Settings, node: Node, problems: Problems
) -> None:
    """A base that is no model of the average: mergekit would add it, or stop because it has no weight."""
    if method.base != "ignored" or method.max_experts == 1 or base in {e.model.identity for e in experts}:
        return
    if any(method.parameter(name).per == "expert" for name in shared):
        problems.add(
            node.where,
            f"'{method.name}' averages the listed models, and the base is not among them",
            "List the base under `models` to average it in as mergekit would, or give each model its own weight.",
        )
    else:
        problems.warn(node.where, f"'{method.name}' averages only the listed models; the base is not among them")
