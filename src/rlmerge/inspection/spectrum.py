"""Spectral figures of every matrix, one whole matrix after the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlmerge.checkpoint import Source
from rlmerge.geometry.spectral import EXACT, compare, decompose
from rlmerge.inspection import Spectrum
from rlmerge.kernels.dtypes import decode
from rlmerge.progress import Progress

from .pairing import Paired

COPIES = 6
"""Matrices of one tensor that are in memory at a time: base, expert, task vector, reconstruction and temporaries."""


def spectra(tensors: Sequence[Paired], names: Sequence[str], memory: int, progress: Progress) -> tuple[Spectrum, ...]:
    """Every expert's figures of every 2-D tensor that fits the ``memory`` budget; says what was left out."""
    matrices = [p for p in tensors if len(p.job.output.shape) == 2 and min(p.job.output.shape) > 1]
    fitting = [p for p in matrices if _needs(p.job.output.shape) <= memory]
    if len(fitting) < len(matrices):
        needed = max(_needs(p.job.output.shape) for p in matrices)
        progress.message(
            f"spectral: left out {len(matrices) - len(fitting)} of {len(matrices)} matrices that need more memory than "
            f"the budget; --memory {-(-needed // 2**20)}MiB is enough for all"
        )
    progress.start("spectral", sum(info.nbytes for p in fitting for info in p.job.sources))
    found: list[Spectrum] = []
    for paired in fitting:
        base = _matrix(paired.job.sources[0])
        first = decompose(base) if np.isfinite(base).all() else None
        for k, info in zip(paired.present, paired.job.experts, strict=True):
            expert = _matrix(info)
            if first is not None and np.isfinite(expert).all():
                shift = compare(base, first, expert)
                figures = {field: getattr(shift, field) for field in shift.__dataclass_fields__}
                found.append(Spectrum(tensor=paired.job.output.name, expert=names[k], **figures))
        progress.advance(sum(info.nbytes for info in paired.job.sources))
    progress.done()
    return tuple(found)


def _matrix(info: Source) -> np.ndarray:
    values = decode(info.read(), info.dtype).reshape(info.shape)
    return values.astype(np.float64) if min(info.shape) <= EXACT else values


def _needs(shape: tuple[int, ...]) -> int:
    return COPIES * shape[0] * shape[1] * (8 if min(shape) <= EXACT else 4)
