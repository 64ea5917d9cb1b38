"""Inspects models before (or after) a merge: one pass for all elementwise figures, one over a sample for forecasts."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np

from rlmerge._version import __version__
from rlmerge.checkpoint import Checkpoint, open_checkpoint
from rlmerge.errors import RequestError
from rlmerge.geometry.measure import measure
from rlmerge.geometry.observation import Observation
from rlmerge.merging.sizing import ahead_of
from rlmerge.merging.stream import Workers
from rlmerge.merging.tiles import Tile, cut
from rlmerge.options import Options
from rlmerge.progress import Progress, Quiet
from rlmerge.recipe import Recipe
from rlmerge.report.names import model_names

from .collect import Collector
from .evidence import Evidence
from .forecast import Forecaster
from .identity import compare_identities
from .look_back import look_back
from .pairing import Paired, pair_up
from .recommend import recommend
from .results import Inspection, Model
from .rules import judge
from .sample import Errors, sampled
from .spectrum import spectra

TILE = 1 << 22
"""Elements per tile. Each comes with histograms of 1 MiB an expert: smaller tiles would spend their time on those."""

SAMPLE = 1 << 26
"""Coordinates a forecast looks at unless told otherwise."""

PART = 1 << 24
"""Coordinates of each model that a sampled inspection reads: 32 MB of bfloat16."""

MAX_EXPERTS = 64

Reference = str | os.PathLike[str]


def inspect(
    base: Reference,
    experts: Sequence[Reference],
    *,
    merged: Reference | None = None,
    recipe: Recipe | None = None,
    options: Options | None = None,
    sample: int = SAMPLE,
    spectral: bool = False,
    part: int | None = None,
    progress: Progress | None = None,
) -> Inspection:
    """Measure every expert against ``base`` and every pair of experts; judge whether and how they can be merged.

    ``merged`` is a merge of these very models to look back on, ``recipe`` what it was asked to be. ``sample`` limits
    the coordinates that forecasts look at (0: all of them). ``spectral`` adds singular value figures of every matrix,
    which cost far more than reading. ``part`` reads about so many coordinates of every model instead of all, evenly
    spread; figures then come with standard errors, and nothing is foretold. CheckpointError if a model cannot be read;
    RequestError if there is nothing to inspect.
    """
    started = time.perf_counter()
    if part is not None and (merged is not None or spectral or part < 1):
        hint = "Leave the sample away, or what needs every weight."
        raise RequestError("a sample of at least one coordinate goes without a merge and without spectra", hint=hint)
    options, progress = options or Options(), progress or Quiet()
    if isinstance(experts, str | os.PathLike):
        raise RequestError("experts must be a list of models", hint=f"Write [{os.fspath(experts)!r}] for one expert.")
    if not 1 <= len(experts) <= MAX_EXPERTS:
        hint = f"Name between 1 and {MAX_EXPERTS} models that were trained from the base."
        raise RequestError(f"cannot inspect {len(experts)} experts", hint=hint)
    checkpoints = [open_checkpoint(reference) for reference in (base, *experts)]
    names = model_names(checkpoints)
    models = [_model(checkpoint, name) for checkpoint, name in zip(checkpoints, names, strict=True)]
    tensors, structure = pair_up(checkpoints, names)
    dtypes = {model.dtype for model in models}
    collector = Collector(models[1:], dtypes.pop() if len(dtypes) == 1 else "mixed")
    tiles = [tile for each in tensors for tile in cut(each.job, TILE)] if part is None else [*sampled(tensors, part)]
    total = sum(tile.nbytes for tile in tiles)
    errors = None if part is None else Errors(models[1:], collector.dtype)
    ahead = ahead_of((paired.job for paired in tensors), options)
    with Workers(_threads(options, len(experts)), ahead=ahead) as workers:
        forecaster = Forecaster(checkpoints, tensors, sample, options.seed, recipe)
        progress.start("measure", total)
        begun = time.perf_counter()
        for paired, seen in _observed(tensors, tiles, len(experts), workers, progress, errors):
            output = paired.job.output
            collector.add(output.name, output.shape, output.dtype.name, seen)
            if part is None:
                forecaster.learn(paired, seen)
        progress.done()
        measured = time.perf_counter()
        forecasts = forecaster.run(workers, collector.whole.seen, names[1:], progress) if part is None else ()
        spectrum = spectra(tensors, names[1:], options.memory, progress) if spectral else ()
        after = look_back(merged, tensors, names[1:], forecasts, workers, progress) if merged is not None else None
    evidence = Evidence(
        base=models[0],
        experts=collector.experts(),
        pairs=collector.pairs(),
        rows=tuple(collector.rows),
        forecasts=forecasts,
        structure=structure,
        identities=compare_identities(checkpoints, names),
        gram=collector.whole.seen.gram,
        routers=collector.routers(),
    )
    return Inspection(
        version=__version__,
        base=models[0],
        experts=evidence.experts,
        pairs=evidence.pairs,
        exactly=collector.exactly(),
        modules=collector.modules(),
        layers=collector.layers(),
        trends=collector.trends(),
        tensors=evidence.rows,
        forecasts=forecasts,
        spectra=spectrum,
        structure=structure,
        findings=judge(evidence),
        recommendation=recommend(evidence),
        after=after,
        seconds=time.perf_counter() - started,
        measuring=measured - begun,
        bytes_read=total,
        routers=evidence.routers,
        sampling=None if errors is None else errors.sampling(sum(each.job.output.numel for each in tensors)),
    )


def _observed(
    tensors: Sequence[Paired],
    tiles: Sequence[Tile],
    experts: int,
    workers: Workers,
    progress: Progress,
    errors: Errors | None,
) -> Iterator[tuple[Paired, Observation]]:
    """Each tensor with the sum of its tiles, in order; ``errors`` takes each tile."""
    by_name = {paired.job.output.name: paired for paired in tensors}

    def work(tile: Tile, inputs: Sequence[np.ndarray]) -> Observation:
        base, *others = inputs
        return measure(base, others, tile.job.operands.inputs)

    for name, group in groupby(workers.map(tiles, work), key=lambda found: found[0].job.name):
        paired, total = by_name[name], None
        for tile, seen in group:
            total = seen if total is None else total + seen
            if errors is not None:
                errors.add(tile, seen.placed(paired.present, experts))
            progress.advance(tile.nbytes)
        assert total is not None
        yield paired, total.placed(paired.present, experts)


def _threads(options: Options, experts: int) -> int:
    """As many as the memory budget feeds: a thread has up to four results of 1.5 MiB an expert under way."""
    each = 4 * experts * 3 * 2**19
    return max(1, min(options.threads, options.memory // each))


def _model(checkpoint: Checkpoint, name: str) -> Model:
    dtypes = {info.dtype.name for info in checkpoint.tensors.values()}
    return Model(
        name,
        checkpoint.reference,
        checkpoint.revision,
        dtypes.pop() if len(dtypes) == 1 else "mixed",
        len(checkpoint.tensors),
        sum(info.numel for info in checkpoint.tensors.values()),
        checkpoint.fingerprint(),
    )
