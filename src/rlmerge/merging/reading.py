"""The blocks of a tile's inputs, from files by way of memory that a thread keeps, or from arrays."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from rlmerge.checkpoint import Source
from rlmerge.checkpoint.output_file import page_aligned
from rlmerge.kernels.blocks import Input, run_blocks
from rlmerge.kernels.calls import Step, address
from rlmerge.kernels.jit import BLOCK

from .job import Job
from .tiles import Tile

_APART = 320
"""Bytes between the blocks of two inputs, so that equal places in them do not share a set of the cache."""

_GOLDEN = 0.381966
"""Share of a row by which the next piece of a sample begins later in its own: no few steps lead back."""

_own = threading.local()


def read_through(
    tile: Tile, calls: Sequence[Step], step: int, *, digested: bool = False, more: Sequence[Input] = ()
) -> np.ndarray:
    """Run ``calls`` on a tile whose inputs all have its elements, ``step`` of at most ``BLOCK`` at a time.

    ``more`` are inputs behind those of the tile. Returns what ``run_blocks`` does; errors as for ``Source.read``.
    """
    inputs, _kept = _places(tile, own_memory("blocks", reading_memory(tile.inputs)))
    digests = run_blocks(calls, [*inputs, *more], tile.count, tile.start, step, digested)
    if digests is None:
        for source in tile.inputs:
            if (place := source.place(tile.start)) is not None:
                place.file.check()
        for call in calls:
            call.restart()
        # By way of a mapping, which says what is wrong with the disk.
        arrays = [source.read(tile.start, tile.stop) for source in tile.inputs]
        inputs = [Input(-1, 0, array.itemsize, address(array)) for array in arrays]
        digests = run_blocks(calls, [*inputs, *more], tile.count, tile.start, step, digested)
        assert digests is not None, "nothing was read"
    for source, place in zip(tile.inputs, inputs, strict=True):
        if place.fd < 0:
            source.release(tile.start, tile.stop)
    return digests


def read_sample(tile: Tile, calls: Sequence[Step], pieces: int, step: int) -> bool:
    """Run ``calls`` on so many pieces of ``step`` elements that are spread over a tile; whether that was possible.

    It is where all of the inputs are files of this machine, and at hand: elsewhere it would wait for the disk.
    """
    if not all(_is_at_hand(source, tile) for source in tile.inputs):
        return False
    inputs, _kept = _places(tile, own_memory("blocks", reading_memory(tile.inputs)))
    stride = (tile.count - step) // (pieces - 1)
    columns = max(1, tile.job.columns)
    if columns <= stride // 2:
        # Pieces that begin at other columns each time see all of them; of longer rows they do anyway.
        stride -= (stride - int(_GOLDEN * columns)) % columns
    return run_blocks(calls, inputs, pieces * step, tile.start, step, False, stride) is not None


def _is_at_hand(source: Source, tile: Tile) -> bool:
    """Whether elements of a source can be read without waiting, as far as its first and last ones tell."""
    ends = (source.place(tile.start), source.place(tile.stop - 1))
    return all(place is not None and place.file.is_cached(place.offset) for place in ends)


def _places(tile: Tile, memory: np.ndarray) -> tuple[list[Input], list[Any]]:
    """Where each input of a tile is read from, by way of ``memory``, and what must be kept until that is done."""
    inputs: list[Input] = []
    kept: list[Any] = [memory]
    here = address(memory)
    for source in tile.inputs:
        size = source.dtype.itemsize
        place = source.place(tile.start)
        if place is None:
            array = source.read(tile.start, tile.stop)
            kept.append(array)
            inputs.append(Input(-1, 0, size, address(array)))
        else:
            file = place.file.opened()
            kept.append(file)
            inputs.append(Input(file.fd, place.offset, size, here))
        here += BLOCK * size + _APART
    return inputs, kept


def job_is_even(job: Job) -> bool:
    """Whether tiles of a job can be read so: its inputs all have its elements."""
    return not job.extras and job.width is not None


def reading_memory(sources: Sequence[Source]) -> int:
    """Bytes that a thread takes for the blocks of ``sources``."""
    return sum(BLOCK * source.dtype.itemsize + _APART for source in sources)


def own_memory(name: str, nbytes: int) -> np.ndarray:
    """Memory of this thread that it keeps for its next tile."""
    held: np.ndarray | None = getattr(_own, name, None)
    if held is None or len(held) < nbytes:
        held = page_aligned(nbytes)
        setattr(_own, name, held)
    return held
