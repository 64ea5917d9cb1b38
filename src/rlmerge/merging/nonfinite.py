"""Finds the NaN or infinity that a kernel noticed and says where it is."""

from __future__ import annotations

from typing import NoReturn

import numpy as np

from rlmerge.errors import CheckpointError, RequestError
from rlmerge.kernels.dtypes import decode

from .job import Job
from .tiles import Tile

_CHUNK = 1 << 20


def refuse_nonfinite(tile: Tile) -> NoReturn:
    """CheckpointError naming model file, tensor, how many values are not finite, and the first."""
    for source in tile.inputs:
        count, first, value = 0, -1, 0.0
        for start in range(0, source.numel, _CHUNK):
            values = decode(source.read(start, min(source.numel, start + _CHUNK)), source.dtype)
            bad = np.flatnonzero(~np.isfinite(values))
            if len(bad) and first < 0:
                first = start + int(bad[0])
                value = float(values[bad[0]])
            count += len(bad)
        if count:
            index = [int(i) for i in np.unravel_index(first, source.shape)]
            raise CheckpointError(
                f"{count} values are not finite; the first is {value} at {index}",
                where=source.where,
                hint="Train or download the model again, or set --on-nonfinite keep or zero.",
            )
    raise RequestError("a value that is not finite went away while it was looked for", where=tile.job.name)


def refuse_overflow(job: Job) -> NoReturn:
    """RequestError: the merge of finite values is not finite in the output type."""
    output = job.output
    raise RequestError(
        f"the merged tensor overflows {output.dtype.name}",
        where=output.name,
        hint="Set --out-dtype bfloat16 or float32, or use smaller coefficients.",
    )
