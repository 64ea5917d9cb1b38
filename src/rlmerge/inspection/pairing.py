"""Pairs the tensors of base and experts for an inspection, which reports what does not fit instead of refusing it."""

from __future__ import annotations

from collections.abc import Sequence

from rlmerge.checkpoint import Checkpoint, OutputTensor, Source
from rlmerge.errors import RequestError
from rlmerge.frozen import frozen
from rlmerge.kernels.dtypes import MERGEABLE
from rlmerge.merging import Job
from rlmerge.merging.heads import settle_heads
from rlmerge.merging.matching import is_derived, see

_SHOWN = 3


@frozen
class Paired:
    """A tensor of the base with the experts that hold it in the same shape: ``present`` are their positions."""

    job: Job
    present: tuple[int, ...]


def pair_up(checkpoints: Sequence[Checkpoint], names: Sequence[str]) -> tuple[tuple[Paired, ...], tuple[str, ...]]:
    """Tensors that can be compared, in the base's order, and a sentence for each way in which the rest cannot.

    RequestError if nothing can be compared.
    """
    sentences: list[str] = []
    base, *experts = see(checkpoints, lambda model: model.tensors, sentences)
    settle_heads(checkpoints, [base, *experts], sentences)
    missing: dict[str, list[str]] = {name: [] for name in names[1:]}
    reshaped: dict[str, list[str]] = {name: [] for name in names[1:]}
    packed: list[str] = []
    tensors: list[Paired] = []
    for name, source in base.items():
        if is_derived(name, source):
            continue
        if source.dtype not in MERGEABLE:
            packed.append(name)
            continue
        present: list[int] = []
        for k, (expert, label) in enumerate(zip(experts, names[1:], strict=True)):
            other = expert.get(name)
            if other is None:
                missing[label].append(name)
            elif other.shape != source.shape or other.dtype not in MERGEABLE:
                reshaped[label].append(f"{name} {list(other.shape)} {other.dtype.name}")
            else:
                present.append(k)
        if present and source.numel:
            tensors.append(_paired(name, source, [experts[k][name] for k in present], present))
    extra = {
        label: [name for name in expert if name not in base and not is_derived(name, expert[name])]
        for expert, label in zip(experts, names[1:], strict=True)
    }
    if not tensors:
        hint = "Name models of one architecture, stored as bfloat16, float16, float32 or float64."
        raise RequestError("base and experts have no tensor in common that could be compared", hint=hint)
    sentences += [
        *(f"{label} lacks {_some(found)} of the base" for label, found in missing.items() if found),
        *(
            f"{label} stores in another shape or packed type: {_some(found)}"
            for label, found in reshaped.items()
            if found
        ),
        *(f"{label} holds {_some(found)} that the base lacks" for label, found in extra.items() if found),
    ]
    if packed:
        sentences.append(f"the base stores {_some(packed)} in a type that holds no plain weights; left out")
    return tuple(tensors), tuple(sentences)


def _paired(name: str, base: Source, experts: Sequence[Source], present: Sequence[int]) -> Paired:
    job = Job(OutputTensor(name, base.dtype, base.shape), None, base, tuple(experts), tuple(present))
    return Paired(job, tuple(present))


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''} ({shown}{more})"
