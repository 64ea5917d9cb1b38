"""What several adapters of one base change, brought together module by module in a form that their sum can take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rlmerge.adapters.dense import DenseSum, RowSum, is_equal
from rlmerge.checkpoint.formats import ADAPTER
from rlmerge.checkpoint.formats.adapter_products import Dora, LowRank, Update
from rlmerge.checkpoint.formats.adapter_sources import Changed, TiedRows, TrainedRows, Untied
from rlmerge.checkpoint.model import Checkpoint
from rlmerge.errors import RequestError
from rlmerge.frozen import frozen

_INNER = ".base_layer"
_ORDER = ("gate_up_proj", "down_proj")
"""Parameters of experts in the order in which models register them, and PEFT wraps them, where no adapter shows it."""

Coefficients = Callable[[str], Sequence[float]]
"""For a tensor of the base the factor of each expert's update."""

Changes = Mapping[str, Mapping[int, Changed]]
"""By tensor and number of the expert, without those that count nothing."""


@frozen
class ProductGroup:
    """Updates of one module or parameter by factors, with their coefficients, and how PEFT names the result."""

    module: str
    terms: tuple[tuple[float, Update], ...]
    is_transposed: bool
    is_parameter: bool


@dataclass
class Gathered:
    """All that is to be written: ``products`` by name of module or parameter, sums of whole tensors, and of rows.

    ``tensors`` are the base's tensors that change, ``whole`` the modules that are replaced as a whole.
    """

    tensors: Sequence[str]
    products: dict[str, ProductGroup]
    dense: list[DenseSum] = field(default_factory=list[DenseSum])
    rows: list[RowSum] = field(default_factory=list[RowSum])
    whole: list[str] = field(default_factory=list[str])
    has_bias: bool = False


def gather(base: Checkpoint, experts: Sequence[Checkpoint], coefficients: Coefficients) -> Gathered:
    """The sum Σ c_k·τ_k in parts; see ``write_adapter_merge`` for the errors."""
    changes = _changes(base, experts, coefficients)
    _check_ties(base, changes)
    factored = {name: sources for name, found in changes.items() if (sources := _factored(found)) is not None}
    gathered = Gathered(tuple(changes), _products(factored, coefficients))
    for name, sources in changes.items():
        if name not in factored:
            _add_whole(gathered, base, name, sources, coefficients(name), changes, factored)
    return gathered


def _changes(base: Checkpoint, experts: Sequence[Checkpoint], coefficients: Coefficients) -> Changes:
    known = {id(tensor) for tensor in base.tensors.values()}
    found: dict[str, dict[int, Changed]] = {}
    for number, expert in enumerate(experts):
        for name, source in expert.tensors.items():
            if id(source) in known:
                continue
            if not isinstance(source, Changed) or id(source.base) not in known:
                what = "is an adapter opened on another base" if expert.format == ADAPTER else "is no adapter"
                hint = "Give adapters of one base; rlmerge extract-lora makes one of a full model."
                raise RequestError(f"{what}, so the result cannot be an adapter", where=expert.reference, hint=hint)
            if not isinstance(source, Untied | TiedRows) and coefficients(name)[number]:
                found.setdefault(name, {})[number] = source
    order = [*base.tensors, *(found.keys() - base.tensors.keys())]
    return {name: found[name] for name in order if name in found}


def _check_ties(base: Checkpoint, changes: Changes) -> None:
    """RequestError if one adapter trains rows of a tied pair together and another changes one of the two."""
    if not base.tied_embeddings:
        return
    heads = {number for name, sources in changes.items() if name.endswith("lm_head.weight") for number in sources}
    for name, sources in changes.items():
        tied = [n for n, source in sources.items() if isinstance(source, TrainedRows) and n not in heads]
        if tied and (heads or len(tied) < len(sources)):
            what = f"some adapters change {name} and the head tied to it together, others apart"
            raise RequestError(what, hint="Merge to full weights instead; they can hold both.")


def _factored(sources: Mapping[int, Changed]) -> Mapping[int, LowRank] | None:
    """The changes if all are products of factors on top of the base itself."""
    found: dict[int, LowRank] = {}
    for number, source in sources.items():
        if not isinstance(source, LowRank):
            return None
        if isinstance(source, Dora):
            what = f"scales the rows of {source.name} (DoRA), which no sum of factors does"
            raise RequestError(what, where=source.update.a.where, hint="Merge to full weights instead.")
        if source.ground is not source.base and not is_equal(source.ground, source.base):
            return None
        found[number] = source
    return found


def _products(factored: Mapping[str, Mapping[int, LowRank]], coefficients: Coefficients) -> dict[str, ProductGroup]:
    tensors: dict[tuple[Update, ...], list[str]] = {}
    for name, sources in factored.items():
        tensors.setdefault(tuple(source.update for source in sources.values()), []).append(name)
    groups: dict[str, ProductGroup] = {}
    seen: set[Update] = set()
    for updates, names in tensors.items():
        numbers = list(factored[names[0]])
        weights = {tuple(coefficients(name)[number] for number in numbers) for name in names}
        if seen.intersection(updates):
            raise _different(updates[0], "name a layer's experts one by one in some of them and together in others")
        if len(weights) > 1:
            raise _different(updates[0], "have other coefficients for some of the tensors it is stored in")
        seen.update(updates)
        group = _group(updates, weights.pop(), [factored[names[0]][number] for number in numbers])
        groups[updates[0].parameter or updates[0].module] = group
    return _nested(groups)


def _group(updates: Sequence[Update], weights: Sequence[float], sources: Sequence[LowRank]) -> ProductGroup:
    first = updates[0]
    layouts = {(u.experts, u.is_embedding, u.a.shape[1:], u.b.shape[0]) for u in updates}
    if len(layouts) > 1 or len({source.is_transposed for source in sources}) > 1:
        raise _different(first, "hold its factors the other way round in some of them")
    if len({update.module.replace(_INNER, "") for update in updates}) > 1:
        raise _different(first, "call it by different names")
    terms = tuple(zip(weights, updates, strict=True))
    turned = sources[0].is_transposed and not first.is_embedding and first.experts == 1
    return ProductGroup(first.module, terms, turned, first.parameter is not None)


def _different(update: Update, how: str) -> RequestError:
    what = f"the adapters have no common form for {update.parameter or update.module}: they {how}"
    return RequestError(what, where=update.a.where, hint="Merge to full weights instead.")


def _nested(groups: dict[str, ProductGroup]) -> dict[str, ProductGroup]:
    """The groups named as PEFT nests the parameters of one module: the first registered one innermost."""
    modules: dict[str, list[str]] = {}
    for name, group in groups.items():
        if group.is_parameter:
            modules.setdefault(group.module.replace(_INNER, ""), []).append(name)
    for module, names in modules.items():
        depths = {name: max(u.module.count(_INNER) for _, u in groups[name].terms) for name in names}
        last = {name: name.rpartition(".")[2] for name in names}
        if len(set(depths.values())) == len(names):
            ordered = sorted(names, key=depths.__getitem__)
        elif set(last.values()) <= set(_ORDER):
            ordered = sorted(names, key=lambda name: -_ORDER.index(last[name]))
        else:
            raise _different(groups[names[0]].terms[0][1], f"leave open in which order {module} holds its parameters")
        for depth, name in enumerate(ordered):
            groups[name] = replace(groups[name], module=module + depth * _INNER)
    return groups


def _add_whole(
    gathered: Gathered,
    base: Checkpoint,
    name: str,
    sources: Mapping[int, Changed],
    weights: Sequence[float],
    changes: Changes,
    factored: Mapping[str, Mapping[int, LowRank]],
) -> None:
    """What has no factors in all adapters: rows, biases, and modules replaced with everything they hold."""
    paths = {source.path for source in sources.values()}
    first = next(iter(sources.values()))
    if len(paths) > 1:
        what = f"the adapters call {name} by different names: {', '.join(sorted(paths))}"
        raise RequestError(what, hint="Merge to full weights instead.")
    module, _, parameter = first.path.rpartition(".")
    rows = {number: source for number, source in sources.items() if isinstance(source, TrainedRows)}
    if len(rows) == len(sources):
        terms = tuple((weights[number], source) for number, source in rows.items())
        gathered.rows.append(RowSum(module, first.base, terms))
        return
    stem = name.rpartition(".")[0]
    weight = f"{stem}.weight"
    is_bias = parameter == "bias" and (weight in factored or weight not in changes)
    path = f"{module}{_INNER}.{parameter}" if is_bias and weight in factored else first.path
    terms = tuple((weights[number], source) for number, source in sources.items())
    gathered.dense.append(DenseSum(path, first.base, terms))
    gathered.has_bias |= is_bias
    if is_bias or module in gathered.whole:
        return
    gathered.whole.append(module)
    for other, tensor in base.tensors.items():
        if other.startswith(f"{stem}.") and other not in changes:
            gathered.dense.append(DenseSum(f"{module}{other.removeprefix(stem)}", tensor, ()))
