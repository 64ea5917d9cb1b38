"""The file that describes a mixture, in the keys that mergekit-moe reads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from os import PathLike
from typing import Any, Literal, cast, get_args

from rlmerge.errors import RecipeError, RequestError, did_you_mean
from rlmerge.frozen import frozen
from rlmerge.recipe.dtypes import canonical_dtype
from rlmerge.recipe.load import read_documents
from rlmerge.recipe.problems import Problems
from rlmerge.recipe.reference import ModelRef, read_model
from rlmerge.recipe.tree import Node, failure
from rlmerge.recipe.words import printable

from .targets import TARGETS

Gate = Literal["hidden", "cheap_embed", "random", "uniform_random"]
GATES: tuple[str, ...] = get_args(Gate)
"""Where router rows come from: hidden states of prompts, their embeddings, normal or uniform random numbers."""

FROM_PROMPTS = ("hidden", "cheap_embed")

MAX_EXPERTS = 512
_DEFAULT_TOP = 2
_KEYS = ("base_model", "experts", "shared_experts", "gate_mode", "dtype", "experts_per_token", "architecture")
_EXPERT_KEYS = ("source_model", "positive_prompts", "negative_prompts", "residual_scale", "noise_scale")


@frozen
class Expert:
    """One dense model whose MLPs become an expert.

    ``residual_scale`` multiplies what its MLPs add to the residual stream; ``noise_scale`` is the standard deviation
    of normal noise on their weights. ``where`` is its place in the file.
    """

    model: ModelRef
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    residual_scale: float
    noise_scale: float
    where: str


@frozen
class MoeConfig:
    """A mixture as it was asked for; ``architecture`` and ``dtype`` are None where the base decides."""

    base: ModelRef
    experts: tuple[Expert, ...]
    shared: tuple[Expert, ...]
    gate: Gate
    experts_per_token: int
    architecture: str | None
    dtype: str | None
    where: str
    warnings: tuple[str, ...]


def read_config(source: str | PathLike[str] | Mapping[str, Any]) -> MoeConfig:
    """The mixture of a YAML file, YAML text or a mapping. RecipeError with everything that is wrong with it."""
    origin, found = read_documents(source)
    if len(found) != 1:
        what = f"holds {len(found)} documents where one describes the mixture"
        raise failure(what, origin or "recipe", "It needs `base_model` and `experts`.")
    root, problems = found[0], Problems()
    if "merge_method" in root.fields:
        what = "this describes a merge, not a mixture of experts"
        raise failure(what, root.fields["merge_method"].where, "Run it with `rlmerge merge`.")
    top = {key: node for key, node in problems.fields(root, _KEYS, "the mixture").items() if node.value is not None}
    if isinstance(root.value, dict):
        for key in ("base_model", "experts"):
            if key not in top:
                problems.add(root.where, f"the mixture names no `{key}`")
    base = read_model(top["base_model"], problems) if "base_model" in top else None
    gate = problems.choice(top["gate_mode"], GATES, "`gate_mode`") if "gate_mode" in top else "hidden"
    experts = _experts(top["experts"], problems) if "experts" in top else ()
    shared = _experts(top["shared_experts"], problems) if "shared_experts" in top else ()
    architecture = _architecture(top.get("architecture"), problems)
    dtype = _dtype(top.get("dtype"), problems)
    count = max(1, len(experts))
    per_token: int | None = min(_DEFAULT_TOP, count)
    if "experts_per_token" in top:
        per_token = problems.whole(top["experts_per_token"], "`experts_per_token`", 1, MAX_EXPERTS)
        if per_token is not None and experts and per_token > count:
            what = f"`experts_per_token` is {per_token}, but there {'is' if count == 1 else 'are'} only {count}"
            problems.add(top["experts_per_token"].where, f"{what} to choose from", f"Give at most {count}.")
    for expert in experts if gate in FROM_PROMPTS else ():
        if not expert.positive:
            hint = "Give prompts that this expert should answer, or use `gate_mode: random`."
            problems.add(expert.where, f"an expert needs `positive_prompts` with gate_mode {gate}", hint)
    for expert in (*experts, *shared):
        if expert.negative and not expert.positive:
            hint = "Add the prompts that this expert should answer."
            problems.add(expert.where, "`negative_prompts` count only beside `positive_prompts`", hint)
        elif expert.positive and gate not in (*FROM_PROMPTS, None):
            problems.warn(expert.where, f"its prompts have no effect with gate_mode {gate}")
    problems.raise_if_any()
    assert base is not None and per_token is not None
    return MoeConfig(
        base, experts, shared, cast("Gate", gate), per_token, architecture, dtype, origin or "recipe", problems.warnings
    )


def _experts(node: Node, problems: Problems) -> tuple[Expert, ...]:
    if not node.items:
        problems.add(node.where, "experts must be a list of entries with a `source_model`")
    elif len(node.items) > MAX_EXPERTS:
        problems.add(node.where, f"{len(node.items)} experts are more than {MAX_EXPERTS}")
        return ()
    found = [_expert(item, problems) for item in node.items]
    return tuple(expert for expert in found if expert is not None)


def _expert(node: Node, problems: Problems) -> Expert | None:
    fields = problems.fields(node, _EXPERT_KEYS, "an expert")
    if not isinstance(node.value, dict):
        return None
    if "source_model" not in fields:
        problems.add(node.where, "an expert needs a `source_model`")
        return None
    model = read_model(fields["source_model"], problems)
    prompts = [_prompts(fields.get(name), name, problems) for name in ("positive_prompts", "negative_prompts")]
    residual = _number(fields.get("residual_scale"), "`residual_scale`", 1.0, problems)
    noise = _number(fields.get("noise_scale"), "`noise_scale`", 0.0, problems, least=0.0)
    return None if model is None else Expert(model, prompts[0], prompts[1], residual, noise, node.where)


def _prompts(node: Node | None, name: str, problems: Problems) -> tuple[str, ...]:
    """Prompts as they are written, blanks included."""
    if node is None or node.value is None:
        return ()
    items = node.items if isinstance(node.value, list) else [node]
    for item in items:
        if not item.is_scalar or not item.text.strip():
            problems.add(item.where, f"`{name}` must be a list of texts")
    return tuple(item.text for item in items if item.is_scalar and item.text.strip())


def _number(node: Node | None, name: str, default: float, problems: Problems, least: float = -math.inf) -> float:
    if node is None or node.value is None:
        return default
    try:
        number = math.nan if isinstance(node.value, bool) else float(node.text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < least:
        bound = "" if least == -math.inf else f" of at least {least:g}"
        problems.add(node.where, f"{name} must be a number{bound}, not '{printable(node.text, 40)}'")
        return default
    return number


def _architecture(node: Node | None, problems: Problems) -> str | None:
    text = problems.text(node, "`architecture`") if node else None
    if node is None or text is None or text in TARGETS:
        return text
    problems.add(
        node.where, f"unknown architecture '{printable(text, 40)}'", did_you_mean(printable(text, 40), TARGETS)
    )
    return None


def _dtype(node: Node | None, problems: Problems) -> str | None:
    text = problems.text(node, "`dtype`") if node else None
    if node is None or text is None:
        return None
    try:
        return canonical_dtype(text, node.where)
    except RecipeError:
        raise
    except RequestError as error:
        problems.add(node.where, error.what, error.hint)
        return None
