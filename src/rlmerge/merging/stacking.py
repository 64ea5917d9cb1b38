"""Whether layers that slices put on one another, or merge with one another, belong together."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from rlmerge.checkpoint import Checkpoint, Source
from rlmerge.checkpoint.reindex import layer_kinds
from rlmerge.errors import CheckpointError, RequestError
from rlmerge.recipe import Slice

Seen = Mapping[int, Mapping[str, Source]]


def misfits(
    template: Checkpoint, models: Sequence[Checkpoint], seen: Seen, names: Collection[str]
) -> Iterator[RequestError]:
    """A problem for each model whose tensors have other shapes than those of ``template``, whose config is written."""
    ours = seen[id(template)]
    for model in models:
        theirs = seen[id(model)]
        for name in theirs:
            if name in names and name in ours and theirs[name].shape != ours[name].shape:
                what = f"'{name}' has shape {list(theirs[name].shape)}, but {list(ours[name].shape)} in "
                hint = "Layers can be stacked only where the models have one width."
                yield RequestError(f"{what}{template.reference}", where=model.reference, hint=hint)
                break


def other_kinds(template: Checkpoint, tower: str, part: Slice, where: str) -> RequestError | None:
    """The problem of a slice that merges layers of different kinds, such as sliding and full attention."""
    if template.config is None:
        return None
    try:
        kinds = layer_kinds(template.config, tower)
    except CheckpointError:  # No number of layers: said where the configuration is written.
        return None
    ranges = [*([part.base_range] if part.base else []), *(source.layer_range for source in part.sources)]
    starts = [bounds[0] for bounds in ranges if bounds is not None]
    first = starts[1 if part.base and len(starts) > 1 else 0] if starts else 0
    for start in starts:
        for i in range(part.length or 0):
            one, other = first + i, start + i
            if max(one, other) < len(kinds) and kinds[one] != kinds[other]:
                what = f"layers {one} and {other} would be merged, but config.json makes them layers of different kinds"
                hint = f"Choose ranges whose layers are alike in {template.reference}."
                return RequestError(what, where=where, hint=hint)
    return None
