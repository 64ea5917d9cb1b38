"""Do the models of a recipe fit together? Names, shapes and element types, compared before any weight is merged."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rlmerge.checkpoint import Checkpoint, Source
from rlmerge.errors import RecipeError, RequestError
from rlmerge.kernels.dtypes import FLOAT32, FLOAT64, MERGEABLE, DType

from .names import rename_like, unwrap

_SHOWN = 5
"""Mismatches listed one by one; the rest are counted."""

FOUND_SHARE = 0.5
"""Share of the base's parameters that the experts must hold; with fewer these are other models."""

_DERIVED = re.compile(
    r"(^|\.)(rotary_emb\.inv_freq|rotary_pos_emb\.inv_freq|position_ids|(attn|attention)\.masked_bias)$"
)
_BUFFERS = ("inv_freq", "position_ids", "bias")
_MASK = re.compile(r"(^|\.)(attn|attention)\.bias$")
_HEADS = re.compile(r"(^|\.)(v_head|value_head|score|reward_head|critic_head)\.")

Tensors = Mapping[str, Source]
View = Callable[[Checkpoint], Tensors]


@dataclass
class Pairs:
    """Matched tensors by output name: the base's, if any, and the experts', which are none where it is copied."""

    matched: dict[str, tuple[Source | None, tuple[Source, ...]]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def see(models: Sequence[Checkpoint], view: View, warnings: list[str]) -> list[dict[str, Source]]:
    """Each model's tensors, as ``view`` gives them, under the first one's names; what was renamed is a warning."""
    reference = unwrap(view(models[0]), models[0].reference)
    warnings += [f"other names: {note}" for note in reference.notes]
    known: dict[int, dict[str, Source]] = {id(models[0]): dict(reference.tensors)}
    for model in models[1:]:
        if id(model) not in known:
            found = rename_like(view(model), reference.tensors, model.reference)
            warnings += [f"other names: {note}" for note in found.notes]
            known[id(model)] = dict(found.tensors)
    return [known[id(model)] for model in models]


def pair_tensors(
    base: Checkpoint | None, experts: Sequence[Checkpoint], seen: Sequence[Tensors], *, promote: bool = True
) -> Pairs:
    """Match tensors of base, if any, and experts by name; ``seen`` are theirs in that order.

    RecipeError with every missing tensor and every shape or element type that differs. ``promote`` warns of types
    that differ and are widened; without it the output's type was chosen.
    """
    pairs = Pairs()
    models: list[Checkpoint] = [*([base] if base else []), *experts]
    names, problems = _names(base, models, seen, pairs)
    promoted: dict[str, list[str]] = {}
    theirs = seen[1 if base else 0 :]
    for name in names:
        base_source = seen[0].get(name) if base else None
        sources = tuple([tensors[name] for tensors in theirs if name in tensors])
        if not sources or is_derived(name, base_source or sources[0]):
            pairs.matched[name] = (base_source, ()) if base_source else (None, sources[:1])
            continue
        problem = _mismatch(base_source, sources, models, promoted)
        if problem is not None:
            problems.append(problem)
        pairs.matched[name] = (base_source, sources)
    if problems:
        raise RecipeError(shortened(problems))
    if not any(sources for _, sources in pairs.matched.values()):
        raise RequestError(_NOTHING, where=experts[0].reference, hint="Merge models of one architecture.")
    for types, examples in promoted.items() if promote else ():
        pairs.warnings.append(
            f"models store {some(examples)} as {types}; merged tensors get the widest of these types. "
            "Set out_dtype for another"
        )
    return pairs


_NOTHING = "shares no tensor with the other models"


def _names(
    base: Checkpoint | None, models: Sequence[Checkpoint], seen: Sequence[Tensors], pairs: Pairs
) -> tuple[list[str], list[RequestError]]:
    """The output's tensors, in the first model's order, and an error for each expert that lacks some of them."""
    experts, theirs = (models[1:], seen[1:]) if base else (models, seen)
    names = dict.fromkeys(seen[0]) if base else dict.fromkeys(name for tensors in seen for name in tensors)
    chosen: list[str] = []
    copied: list[str] = []
    lacking: dict[str, list[str]] = {}
    if all(tensors.keys() == names.keys() for tensors in theirs):
        return list(names), []
    for name in names:
        holders = [name in tensors for tensors in theirs]
        if all(holders):
            chosen.append(name)
        elif base and not any(holders):
            chosen.append(name)
            if not is_derived(name, seen[0][name]):
                copied.append(name)
        elif is_derived(name, next(t[name] for t in seen if name in t)):
            chosen.append(name)
        elif base is None and _HEADS.search(name):
            pairs.warnings.append(f"'{name}' is not in every model and is left out")
        else:
            chosen.append(name)
            for expert, held in zip(experts, holders, strict=True):
                if not held:
                    lacking.setdefault(expert.reference, []).append(name)
    problems = [_missing(reference, absent, base) for reference, absent in lacking.items()]
    if base and not problems:
        problems += _check_found(base, experts, seen[0], copied)
        if copied:
            pairs.warnings.append(f"no expert has {some(copied)} of {base.reference}; copied from there")
        for expert, tensors in dict(zip(experts, theirs, strict=True)).items():
            extra = [name for name in tensors if name not in seen[0] and not is_derived(name, tensors[name])]
            if extra:
                what = f"{expert.reference} holds {some(extra)} that {base.reference} lacks"
                pairs.warnings.append(f"{what}; left out")
    return chosen, problems


def _check_found(
    base: Checkpoint, experts: Sequence[Checkpoint], tensors: Tensors, copied: Sequence[str]
) -> list[RequestError]:
    total = sum(source.numel for source in tensors.values())
    absent = sum(tensors[name].numel for name in copied)
    if absent <= (1 - FOUND_SHARE) * total:
        return []
    what = f"holds only {1 - absent / total:.0%} of the parameters of {base.reference}; {some(copied)} are missing"
    hint = "Merge models of one architecture; is this the whole checkpoint?"
    return [RequestError(what, where=experts[0].reference, hint=hint)]


def is_derived(name: str, source: Source) -> bool:
    """Whether a tensor is a buffer that models compute themselves: rotary frequencies, masks, position numbers."""
    if not name.endswith(_BUFFERS):
        return False
    if _DERIVED.search(name):
        return True
    return bool(_MASK.search(name)) and (len(source.shape) == 4 or source.dtype.name in ("bool", "uint8"))


def _missing(reference: str, names: Sequence[str], base: Checkpoint | None) -> RequestError:
    hint = "Merge models of one architecture and one layout."
    if base is None:
        hint = "Name a base_model: tensors that no expert trained are then copied from it."
    return RequestError(f"lacks {some(names)} that other models of the recipe have", where=reference, hint=hint)


def _mismatch(
    base: Source | None,
    sources: Sequence[Source],
    models: Sequence[Checkpoint],
    promoted: dict[str, list[str]],
) -> RequestError | None:
    """The problem of one tensor; element types that are merged in the widest of them are noted in ``promoted``."""
    first, *others = (base, *sources) if base else sources
    if first.dtype in MERGEABLE:
        dtype, shape, nominal = first.dtype, first.shape, first.nominal
        for other in others:
            if other.dtype is not dtype or other.shape != shape or other.nominal is not nominal:
                break
        else:
            return None
    for other, model in zip(others, models[1:], strict=False):
        where = f"{model.reference}: {first.name}"
        if other.shape != first.shape:
            return RequestError(
                f"shape {list(other.shape)} differs from {list(first.shape)} in {models[0].reference}",
                where=where,
                hint=_shape_hint(first, other),
            )
        mergeable = first.dtype in MERGEABLE and other.dtype in MERGEABLE
        if other.dtype is not first.dtype and not mergeable:
            what = f"stored as {other.dtype.name}, not {first.dtype.name}"
            return RequestError(what, where=where, hint=_QUANTISED)
    if first.dtype.name.startswith("float8"):
        what = f"is {first.dtype.name}, which cannot be merged as it is"
        return RequestError(what, where=f"{models[0].reference}: {first.name}", hint=_QUANTISED)
    types = sorted({source.nominal.name for source in (first, *others)})
    if len(types) > 1:
        promoted.setdefault(" and ".join(types), []).append(first.name)
    return None


def widest(dtypes: Iterable[DType]) -> DType:
    """The type that holds all values of ``dtypes``: their own, or float32 for two 16-bit ones."""
    found = set(dtypes)
    if len(found) == 1:
        return found.pop()
    return FLOAT64 if FLOAT64 in found else FLOAT32


_QUANTISED = "Convert quantised models to bfloat16 first; merging quantised weights needs their scales."


def _shape_hint(first: Source, other: Source) -> str:
    if (
        len(first.shape) == 2 and first.shape[1:] == other.shape[1:] and "embed" in first.name
    ) or "lm_head" in first.name:
        return "The vocabularies differ; set tokenizer_source to base, union or one of the models."
    return "These models are not of one architecture and size; they cannot be merged."


def some(names: Sequence[str]) -> str:
    """How many tensors, with the first names."""
    shown = ", ".join(f"'{name}'" for name in names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''} ({shown}{more})"


def shortened(problems: list[RequestError]) -> list[RequestError]:
    """The first few problems and how many more there are."""
    if len(problems) <= _SHOWN:
        return problems
    return [*problems[:_SHOWN], RequestError(f"and {len(problems) - _SHOWN} more tensors that do not match")]
