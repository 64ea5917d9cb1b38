"""Looks back on a finished merge: what of each expert is in the stored weights."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rlmerge.checkpoint import Source, open_checkpoint
from rlmerge.checkpoint.module_kinds import ROUTER, kind_of
from rlmerge.errors import RequestError
from rlmerge.geometry.survival import Survival, compare, compared
from rlmerge.kernels.dtypes import MERGEABLE, decode
from rlmerge.kernels.program import reduce_kernel
from rlmerge.kernels.rounding import encode
from rlmerge.kernels.values import Extra
from rlmerge.merging import Job
from rlmerge.merging.stream import Workers
from rlmerge.merging.tiles import Tile, cut
from rlmerge.progress import Progress

from .pairing import Paired
from .results import Forecast

TILE = 1 << 20


def look_back(
    merged: str | os.PathLike[str],
    tensors: Sequence[Paired],
    names: Sequence[str],
    forecasts: Sequence[Forecast],
    workers: Workers,
    progress: Progress,
) -> Forecast:
    """Survival, realised coefficient and retention of every expert in ``merged``, over the tensors all of them hold.

    What was asked for before rounding comes from the forecast "as requested", if there is one. RequestError if
    ``merged`` shares no tensor with the others.
    """
    model = open_checkpoint(merged)
    usable = [
        paired
        for paired in tensors
        if len(paired.present) == len(names)
        and (info := model.tensors.get(paired.job.output.name)) is not None
        and info.shape == paired.job.output.shape
        and info.dtype in MERGEABLE
    ]
    if not usable:
        raise RequestError(
            "has no tensor in common with the models of the recipe",
            where=model.reference,
            hint="Give the merge and the recipe (or rlmerge.lock.yaml) it was made from.",
        )
    total: Survival | None = None
    routers: Survival | None = None
    tiles = [
        tile for paired in usable for tile in cut(_with_merged(paired, model.tensors[paired.job.output.name]), TILE)
    ]
    progress.start("look back", sum(tile.nbytes for tile in tiles))
    for tile, found in workers.map(tiles, _compare):
        total = found if total is None else total + found
        if kind_of(tile.job.name) == ROUTER:
            routers = found if routers is None else routers + found
        progress.advance(tile.nbytes)
    progress.done()
    assert total is not None
    requested = {
        outcome.expert: outcome.requested for f in forecasts if f.label == "as requested" for outcome in f.experts
    }
    outcomes = tuple(
        replace(outcome, requested=requested.get(outcome.expert, outcome.requested))
        for outcome in total.outcomes(names)
    )
    method = next((f.method for f in forecasts if f.label == "as requested"), "unknown")
    dtypes = {model.tensors[paired.job.output.name].dtype.name for paired in usable}
    dtype = dtypes.pop() if len(dtypes) == 1 else "mixed"
    of_routers = math.nan if routers is None else routers.share
    return Forecast("as stored", method, {}, "exact", dtype, total.share, 1.0, outcomes, of_routers)


def _with_merged(paired: Paired, merged: Source) -> Job:
    """The tensor with the merged model as one more expert, the last."""
    return replace(paired.job, experts=(*paired.job.experts, merged))


def _compare(tile: Tile, inputs: Sequence[np.ndarray]) -> Survival:
    layout = tile.job.operands
    base, out = layout.inputs[0], layout.inputs[-1]
    reference = inputs[0] if out is base else encode(decode(inputs[0], base), out)
    values = {"reference": Extra((out,))}
    found = reduce_kernel(compare, layout, values, "several")([*inputs, reference])
    if found.nonfinite_in:
        found = reduce_kernel(compare, layout, values, "several", zero_nonfinite=True)([*inputs, reference])
    return compared(found.counts, found.sums.sum(axis=0))
