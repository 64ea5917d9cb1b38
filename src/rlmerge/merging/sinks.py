"""Where a job's merged tiles go: into shards on disk, into memory, or nowhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rlmerge.checkpoint import PartialDirectory, ShardPlan, ShardWriter
from rlmerge.checkpoint.output_file import PAGE
from rlmerge.options import Options

from .job import Job
from .tiles import Tile

if TYPE_CHECKING:
    from .like_base import Encoding


class Sink(Protocol):
    """Takes the tiles of a job in order, on one thread.

    One that is ``in_place`` has memory of its own for every tile. For one that is ``sampled`` the account of a part of
    each large tensor will do, for the whole of it.
    """

    in_place: bool
    sampled: bool

    def buffer(self, job: Job, tile: Tile) -> Any | None:
        """Storage values [tile.count] to merge the tile into; None for a buffer of the executor's own."""
        ...

    def shift(self, job: Job, tile: Tile) -> int:
        """How many bytes behind the start of a page a buffer of the executor's should begin."""
        ...

    def write(self, job: Job, tile: Tile, stored: Any) -> Sequence[Future[Any]]:
        """Take one tile, as storage values, which may change once all of the futures are done."""
        ...

    def finish(self, job: Job, stats: Mapping[str, Any]) -> None:
        """The last tile was written; ``stats`` is what the merge accounted for."""
        ...


class ShardSink:
    """Writes tensors into the shards of a directory, with an entry in its journal for each that is complete.

    What an interrupted run left of a job's several tensors is not written again. ``stats`` are by job.
    """

    in_place = False
    sampled = False

    def __init__(self, partial: PartialDirectory, shards: Sequence[ShardPlan], options: Options) -> None:
        self.partial = partial
        self.options = options
        self.encoding: Encoding | None = None
        self.shard_of = {output.name: shard for shard in shards for output in shard.tensors}
        self.places = {name: place for shard in shards for name, place in shard.places()}
        self.writers: dict[str, ShardWriter] = {}
        self.stats: dict[str, Mapping[str, Any]] = {}

    def buffer(self, job: Job, tile: Tile) -> None:
        """Shards are written from the executor's buffers."""

    def shift(self, job: Job, tile: Tile) -> int:
        """As far as the tile's place in its shard is, so that whole pages are written from the buffer."""
        if job.encoder is not None:
            return 0
        size = job.output.dtype.itemsize
        shift = (self.places[job.name] + tile.start * size) % PAGE
        return shift if shift % size == 0 else 0

    def write(self, job: Job, tile: Tile, stored: Any) -> Sequence[Future[Any]]:
        """Append one tile to its shard."""
        if job.encoder is None:
            return () if job.name in self.partial.completed() else self._writer(job.name).submit(job.name, stored)
        for codes in self._encoding(job).take(stored):
            self._append(job.outputs[0].name, codes)
        return ()

    def finish(self, job: Job, stats: Mapping[str, Any]) -> None:
        """Close the tensor in its shard and in the journal."""
        if job.encoder is not None:
            encoding, self.encoding = self._encoding(job), None
            stats = encoding.stats(stats)
            codes, *rest = job.outputs
            left = encoding.left()
            self._close(codes.name, {})
            for output in rest:
                self._append(output.name, left[output.name])
                self._close(output.name, stats if output.name == job.last else {})
        else:
            self._close(job.name, stats)
        self.stats[job.name] = stats

    def _encoding(self, job: Job) -> Encoding:
        if self.encoding is None:
            from .like_base import Encoding

            self.encoding = Encoding(job, self.options)
        return self.encoding

    def _append(self, name: str, stored: Any) -> None:
        if name not in self.partial.completed():
            self._writer(name).write(name, stored)

    def _close(self, name: str, stats: Mapping[str, Any]) -> None:
        if name not in self.partial.completed():
            self._writer(name).finish_tensor(name, dict(stats))

    def _writer(self, name: str) -> ShardWriter:
        shard = self.shard_of[name]
        if shard.name not in self.writers:
            self.writers[shard.name] = self.partial.shard_writer(shard)
        return self.writers[shard.name]


class StateSink:
    """Merges into arrays of its own, one a tensor, that ``make(job)`` allocates flat."""

    in_place = True
    sampled = False

    def __init__(self, make: Callable[[Job], Any]) -> None:
        self.make = make
        self.state: dict[str, Any] = {}

    def buffer(self, job: Job, tile: Tile) -> Any:
        """The tile's range of the tensor."""
        return self._array(job)[tile.start : tile.stop]

    def write(self, job: Job, tile: Tile, stored: Any) -> Sequence[Future[Any]]:
        """A merged tile is in place already; a copied one is put there."""
        if job.method is None:
            self._array(job)[tile.start : tile.stop] = stored
        return ()

    def finish(self, job: Job, stats: Mapping[str, Any]) -> None:
        """Empty tensors have no tile, but are there."""
        self._array(job)

    def shift(self, job: Job, tile: Tile) -> int:
        """There is no such buffer."""
        return 0

    def _array(self, job: Job) -> Any:
        if job.name not in self.state:
            self.state[job.name] = self.make(job)
        return self.state[job.name]


class StatsSink:
    """Keeps nothing but what merges would account for."""

    in_place = False

    def __init__(self, take: Callable[[Job, Mapping[str, Any]], None], sampled: bool = False) -> None:
        self.take = take
        self.sampled = sampled

    def buffer(self, job: Job, tile: Tile) -> np.ndarray | None:
        """Any memory will do."""
        return None

    def shift(self, job: Job, tile: Tile) -> int:
        """At any place."""
        return 0

    def write(self, job: Job, tile: Tile, stored: Any) -> Sequence[Future[Any]]:
        """Dropped."""
        return ()

    def finish(self, job: Job, stats: Mapping[str, Any]) -> None:
        """Hand the account of one tensor on."""
        self.take(job, stats)
