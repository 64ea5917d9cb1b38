"""Reading a measured sensitivity for a merge. Needs no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rlmerge.checkpoint.model import Checkpoint, open_checkpoint
from rlmerge.checkpoint.sensitivity_record import RECORD, SensitivityRecord, read_record
from rlmerge.checkpoint.source import Source
from rlmerge.errors import CheckpointError
from rlmerge.frozen import frozen
from rlmerge.kernels.dtypes import FLOAT32

_SCAN_ELEMENTS = 1 << 22
_LISTED = 5
_AGAIN = "Measure the model's sensitivity again."


@frozen(eq=False)
class Sensitivity:
    """The diagonal Fisher of one checkpoint, and perhaps the Gram matrices of its linear layers' inputs.

    ``tensors`` has the checkpoint's tensor names and shapes, in float32, mean over sequences of squared gradients.
    ``grams`` maps the weight names [outputs, inputs] of linear layers to float32 matrices [inputs, inputs], sums over
    ``record.gram_tokens`` tokens; layers with the same input share one.
    """

    path: Path
    record: SensitivityRecord
    tensors: Mapping[str, Source]
    grams: Mapping[str, Source]

    def scan(self) -> None:
        """Read every Fisher value once; CheckpointError when one is negative, NaN or infinite."""
        for info in self.tensors.values():
            for start in range(0, info.numel, _SCAN_ELEMENTS):
                stop = min(start + _SCAN_ELEMENTS, info.numel)
                check_values(info.read(start, stop), info, start)
                info.release(start, stop)


def check_values(values: np.ndarray, info: Source, start: int = 0) -> None:
    """CheckpointError naming tensor, count and first index when ``values``, which begin at flat index ``start`` of
    ``info``, hold a negative, NaN or infinite number."""
    # min and max propagate NaN and need no temporary, so good values cost two reads of the tile.
    if not values.size or (values.min() >= 0 and values.max() < np.inf):
        return
    bad = np.flatnonzero(~((values >= 0) & (values < np.inf)))
    what = f"{len(bad)} sensitivities are negative or not finite; the first, {values[bad[0]]!s}, is at {start + bad[0]}"
    raise CheckpointError(what, where=info.where, hint=_AGAIN)


def load_sensitivity(directory: str | os.PathLike[str], checkpoint: Checkpoint) -> Sensitivity:
    """The sensitivity in ``directory``, which must have been measured on ``checkpoint``.

    Reads headers only. CheckpointError when it is of another model, lacks a float tensor of the checkpoint, or has one
    of another shape or type.
    """
    stored = open_checkpoint(directory)
    record = read_record(stored.path)
    _check_model(stored, record, checkpoint)
    needed = {
        name: info.shape
        for name, info in checkpoint.tensors.items()
        if info.dtype.is_float and name not in record.uncovered
    }
    tensors = _select(stored, {name: name for name in needed})
    widths = {name: checkpoint.tensors[name].columns for name in record.grams if name in checkpoint.tensors}
    grams = _select(stored, {name: record.grams[name] for name in widths})
    _check_shapes(stored, tensors, needed)
    _check_shapes(stored, grams, {name: (width, width) for name, width in widths.items()})
    return Sensitivity(stored.path, record, tensors, grams)


def _check_model(stored: Checkpoint, record: SensitivityRecord, checkpoint: Checkpoint) -> None:
    if record.model_digest == checkpoint.fingerprint():
        return
    raise CheckpointError(
        f"was measured on another model ('{record.model}', digest {record.model_digest[:12]}), not on "
        f"'{checkpoint.reference}' (digest {checkpoint.fingerprint()[:12]})",
        where=str(stored.path / RECORD),
        hint=f"Run: rlmerge sensitivity --model {checkpoint.reference} --data … -o …",
    )


def _select(stored: Checkpoint, names: Mapping[str, str]) -> dict[str, Source]:
    missing = [name for name in names.values() if name not in stored.tensors]
    if missing:
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        what = f"lacks {len(missing)} tensors: {', '.join(missing[:_LISTED])}{more}"
        raise CheckpointError(what, where=str(stored.path), hint=_AGAIN)
    return {name: stored.tensors[place] for name, place in names.items()}


def _check_shapes(stored: Checkpoint, tensors: Mapping[str, Source], shapes: Mapping[str, tuple[int, ...]]) -> None:
    for name, info in tensors.items():
        if info.dtype is not FLOAT32 or info.shape != shapes[name]:
            what = f"is {info.dtype.name} {list(info.shape)}, not float32 {list(shapes[name])}"
            where = f"{stored.path}: {info.name}"
            raise CheckpointError(what, where=where, hint=_AGAIN)
