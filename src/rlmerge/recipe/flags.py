"""The recipe that a command line or a function call spells out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlmerge.errors import RequestError
from rlmerge.recipe.load import registered
from rlmerge.recipe.model import Recipe
from rlmerge.recipe.parse import Lookup, build
from rlmerge.recipe.tree import Node, failure, from_value, text_node
from rlmerge.recipe.words import printable
from rlmerge.recipe.yaml_text import documents


def recipe_from_flags(
    method: str,
    base: str | None,
    experts: Sequence[str],
    parameters: Mapping[str, str | float | bool | Sequence[Any]] | None = None,
    *,
    dtype: str | None = None,
    out_dtype: str | None = None,
    compat: bool = False,
    lookup: Lookup | None = None,
) -> Recipe:
    """The recipe of a method, its models and its parameters.

    Text values are YAML (``0.5``, ``true``, ``[0, 1]``). A comma-separated list is one value per expert for a parameter
    that has one (``weight=0.5,0.3``), and a gradient over the layers for any other. Further inputs are directories,
    one per expert (``sensitivity=DIR1,DIR2``). A base is never averaged in: it is what the experts are compared with.
    RecipeError as for a file.
    """
    lookup = lookup or registered
    top = {"merge_method": text_node(method, "--method")}
    if base is not None:
        top["base_model"] = text_node(base, "--base")
    for key, name, flag in (("dtype", dtype, "--dtype"), ("out_dtype", out_dtype, "--out-dtype")):
        if name is not None:
            top[key] = text_node(name, flag)
    if compat:
        top["compat"] = Node("mergekit", "--compat", text="mergekit")
    shared, own, inputs = _split_parameters(method, len(experts), parameters or {}, lookup)
    top["parameters"] = Node(shared, "-p")
    models = [_model_entry(expert, own, inputs, index) for index, expert in enumerate(experts)]
    top["models"] = Node(models, "models")
    return build(Node(top, "--method"), None, lookup, from_file=False)


def _model_entry(expert: str, own: Mapping[str, list[Node]], inputs: Mapping[str, list[Node]], index: int) -> Node:
    parameters = {name: values[index] for name, values in own.items()}
    directories = {name: values[index] for name, values in inputs.items()}
    entry = {"model": text_node(expert, printable(expert)), **directories, "parameters": Node(parameters, "-p")}
    return Node(entry, printable(expert))


def _split_parameters(
    method: str, count: int, parameters: Mapping[str, Any], lookup: Lookup
) -> tuple[dict[str, Node], dict[str, list[Node]], dict[str, list[Node]]]:
    """Parameters for all experts, those given one by one, and the directories of further inputs."""
    try:
        per_expert = {p.name for p in lookup(method).parameters if p.per == "expert"}
        directories = lookup(method).inputs
    except RequestError:  # reading the recipe reports it, with everything else
        per_expert, directories = set[str](), ()
    shared: dict[str, Node] = {}
    own: dict[str, list[Node]] = {}
    inputs: dict[str, list[Node]] = {}
    for name, value in parameters.items():
        if name in directories:
            inputs[name] = _directories(name, value, count)
            continue
        node = _flag_value(name, value)
        listed = (isinstance(value, str) and "," in value and not value.lstrip().startswith("[")) or (
            not isinstance(value, str) and isinstance(node.value, list)
        )
        if name not in per_expert or not listed:
            shared[name] = node
        elif len(node.items) != count:
            raise failure(
                f"'{name}' has {len(node.items)} values for {count} experts",
                f"-p {name}",
                "Give one value for all, or one per expert in their order.",
            )
        else:
            own[name] = node.items
    return shared, own, inputs


def _directories(name: str, value: Any, count: int) -> list[Node]:
    """One directory per expert, from text with commas between them or from a sequence of paths."""
    listed = value.split(",") if isinstance(value, str) and count > 1 else value
    node = from_value(listed, f"-p {name}")
    found = node.items or [node]
    if len(found) != count:
        what = f"'{name}' has {len(found)} directories for {count} experts"
        raise failure(what, f"-p {name}", "Give one directory per expert, in their order.")
    return found


def _flag_value(name: str, value: Any) -> Node:
    where = f"-p {name}"
    if not isinstance(value, str):
        return from_value(value, where)
    flow = f"[{value}]" if "," in value and not value.lstrip().startswith(("[", "{")) else value
    if not flow.strip():
        raise failure("needs a value", where, f"Write -p {name}=VALUE.")
    found = documents(flow, where)
    return _relocated(found[0], where) if len(found) == 1 else Node(None, where)


def _relocated(node: Node, where: str) -> Node:
    """The same node without line numbers, which mean nothing in a flag."""
    if isinstance(node.value, list):
        return Node([_relocated(item, where) for item in node.value], where)
    if isinstance(node.value, dict):
        return Node({key: _relocated(entry, where) for key, entry in node.value.items()}, where)
    return Node(node.value, where, text=node.text)
