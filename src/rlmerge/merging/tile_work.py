"""What a worker does with one tile of a tensor: merge it for every recipe, or copy it, and digest what was read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from rlmerge.errors import CheckpointError
from rlmerge.frozen import frozen
from rlmerge.kernels.blocks import Input, xxh3
from rlmerge.kernels.calls import address
from rlmerge.kernels.jit import ACCOUNT_BLOCK, BLOCK, Call
from rlmerge.methods import Share

from .backend import Merger, Numbers, together
from .job import Job
from .on_llvm import Drawing, LlvmMerger
from .reading import job_is_even, own_memory, read_through
from .tiles import Tile

if TYPE_CHECKING:
    from rlmerge.kernels.ranks import RankCall

REGION, SAMPLE = 1 << 21, 1 << 18
"""Where a sample will do, the first ``SAMPLE`` elements of every ``REGION`` of a tensor are accounted for."""

Done = tuple[list[Any], Sequence[bytes]]
"""What a tile came to in each lane, numbers of a merge or the values of a copy, and the digests of its inputs."""


@frozen
class TileMerge:
    """One lane's merger of a tensor, and what the method says of it; ``quiet`` merges what needs no account.

    Without a merger the tensor is copied.
    """

    job: Job
    merger: Merger | None
    notes: Sequence[str] = ()
    report: Mapping[str, Share] = field(default_factory=dict[str, Share])
    quiet: Merger | None = None

    def ranges(self, tile: Tile) -> list[tuple[int, int]]:
        """Ranges [start, stop) of a tile, counted from its first element, that are accounted for."""
        if self.quiet is None:
            return [(0, tile.count)] if tile.count else []
        regions = range(tile.start - tile.start % REGION, tile.stop, REGION)
        found = [(max(at, tile.start) - tile.start, min(at + SAMPLE, tile.stop) - tile.start) for at in regions]
        return [(start, stop) for start, stop in found if start < stop]

    def accounted(self, tile: Tile) -> int:
        """How many elements of a tile are accounted for."""
        return sum(stop - start for start, stop in self.ranges(tile))

    def tells(self, tile: Tile, offset: int) -> bool:
        """Whether an element of a tile is accounted for."""
        return self.quiet is None or (tile.start + offset) % REGION < SAMPLE

    def at(self, tile: Tile, offset: int) -> Merger:
        """What merges the tile's elements from ``offset`` on, as far as they are accounted for or not."""
        merger = self.merger if self.tells(tile, offset) else self.quiet
        assert merger is not None, "a copied tensor is not merged"
        return merger

    def numbers(self, tile: Tile, found: Sequence[tuple[int, Numbers]]) -> Numbers:
        """What parts of a tile, each with its offset, come to: the account is that of the accounted ones."""
        if len(found) == 1:
            return found[0][1]
        told = [numbers for offset, numbers in found if self.tells(tile, offset)]
        everything = [numbers for _, numbers in found]
        return replace(
            together(told or everything),
            nonfinite_in=any(numbers.nonfinite_in for numbers in everything),
            nonfinite_out=any(numbers.nonfinite_out for numbers in everything),
        )


class TileWork:
    """Merges or copies the tiles of one tensor for every lane; any thread may call it.

    One that ``reads`` takes its inputs from the files by itself, a block at a time.
    """

    def __init__(self, merges: Sequence[TileMerge], digested: bool) -> None:
        self.merges = merges
        self.digested = digested
        self.copies = merges[0].merger is None
        mergers = [merger for merge in merges for merger in (merge.merger, merge.quiet) if merger is not None]
        compiled = [merger for merger in mergers if isinstance(merger, LlvmMerger) and merger.reads_blocks]
        even = all(job_is_even(merge.job) for merge in merges)
        self.ranks = any(merger.ranking for merger in compiled)
        # Rows that must stay together are read so only for what is computed of them by machine code.
        even = even and all(merge.job.by_rows == self.ranks for merge in merges)
        even = even and all(bool(merger.ranking) == self.ranks for merger in compiled)
        self.reads = compiled == mergers and not self.copies and even and (not digested or xxh3() is not None)
        self.undrawn = merges
        self.drawing: Drawing | None = None
        if self.reads and not digested:
            self._share_draws()

    def _share_draws(self) -> None:
        """Have the random numbers drawn once that several lanes draw with the same keys."""
        drawn = [merge.merger.draws if isinstance(merge.merger, LlvmMerger) else () for merge in self.merges]
        keys, lanes = Counter(filter(None, drawn)).most_common(1)[0] if any(drawn) else ((), 0)
        if lanes > 1:
            self.drawing = Drawing(keys, self.merges[0].job.sources[0].dtype)
            self.merges = [
                _with_draws(merge) if own == keys else merge for merge, own in zip(self.merges, drawn, strict=True)
            ]

    def __call__(self, tile: Tile, inputs: Sequence[Any], outs: Sequence[Any]) -> Done:
        """Merge ``tile`` into the arrays ``outs``, from ``inputs`` unless it reads."""
        if self.reads:
            return self._by_blocks(tile, outs)
        digests = [_digest(values, tile.block) for values in inputs] if self.digested else ()
        return [_copied(tile, inputs)] * len(outs) if self.copies else self._whole(tile, inputs, outs), digests

    def _whole(self, tile: Tile, inputs: Sequence[Any], outs: Sequence[Any]) -> list[Numbers]:
        """The tile's numbers, lane by lane."""
        done: list[Numbers] = []
        for merge, out in zip(self.merges, outs, strict=True):
            own = tile.of(merge.job)
            found: list[tuple[int, Numbers]] = []
            for start, stop in _parts(own, [merge]):
                # Further inputs may have a size of their own; such a tile is never cut.
                part = inputs if stop - start == tile.count else [values[start:stop] for values in inputs]
                found.append((start, merge.at(own, start)(own.part(start, stop), part, out[start:stop])))
            done.append(merge.numbers(own, found))
        return done

    def _by_blocks(self, tile: Tile, outs: Sequence[np.ndarray]) -> Done:
        """The same, of blocks that are read and digested while they are in the processor's cache."""
        found: list[list[tuple[int, Numbers]]] = [[] for _ in self.merges]
        digests: list[np.ndarray] = []
        for start, stop in _parts(tile, self.merges):
            mergers = [merge.at(tile, start) for merge in self.merges]
            chosen = [merger for merger in mergers if isinstance(merger, LlvmMerger)]
            part = tile.part(start, stop)
            numbers, read = self._merge_blocks(part, chosen, [out[start:stop] for out in outs])
            digests.append(read)
            for own, more in zip(found, numbers, strict=True):
                own.append((start, more))
        done = [merge.numbers(tile, own) for merge, own in zip(self.merges, found, strict=True)]
        return done, [row.tobytes() for row in np.concatenate(digests, axis=1).astype(">u8")]

    def _merge_blocks(
        self, tile: Tile, mergers: Sequence[LlvmMerger], outs: Sequence[np.ndarray]
    ) -> tuple[list[Numbers], np.ndarray]:
        """Numbers by merger, and the digests of the blocks of each input."""
        # Digests are of whole blocks; without them, shorter steps leave more of the cache to several kernels.
        step = tile.block if self.ranks else BLOCK if self.digested else ACCOUNT_BLOCK
        draws, drawn = self._draws(tile, step)
        calls = [merger.call(tile, out, step) for merger, out in zip(mergers, outs, strict=True)]
        rankings, fields = self._rankings(mergers, step)
        # A lane's ranks take the place of those of the lane before.
        turns = [call for turn in zip(rankings, calls, strict=True) for call in turn] if rankings else calls
        digests = read_through(tile, [*draws, *turns], step, digested=self.digested, more=[*fields, *drawn])

        def again() -> list[np.ndarray]:
            return [source.read(tile.start, tile.stop) for source in tile.inputs]

        if any(ranking.odd for ranking in rankings):
            arrays = again()
            own = [merge.at(tile, 0) for merge in self.undrawn]
            return [merger(tile, arrays, out) for merger, out in zip(own, outs, strict=True)], digests
        return [merger.numbers(call, again) for merger, call in zip(mergers, calls, strict=True)], digests

    def _rankings(self, mergers: Sequence[LlvmMerger], step: int) -> tuple[list[RankCall], list[Input]]:
        """What makes the field of each lane at a step, and where it is then."""
        if not self.ranks:
            return [], []
        count = len(self.merges[0].job.experts)
        memory = own_memory("ranks", 4 * step * count)[: 4 * step * count].view(np.float32).reshape(count, step)
        calls = [merger.ranking.call(memory) for merger in mergers if merger.ranking is not None]
        return calls, [Input(-1, 0, 0, address(row)) for row in memory]

    def _draws(self, tile: Tile, step: int) -> tuple[list[Call], list[Input]]:
        """What draws the random numbers of each step, and where they are then."""
        if self.drawing is None:
            return [], []
        count = self.drawing.count
        memory = own_memory("draws", 4 * step * count)[: 4 * step * count].view(np.float32).reshape(count, step)
        # Of no size, so that every step finds them at the same place.
        return self.drawing.calls(tile, memory), [Input(-1, 0, 0, address(row)) for row in memory]


def _with_draws(merge: TileMerge) -> TileMerge:
    """The lane with its random numbers as further inputs."""
    merger, quiet = (each.drawn() if isinstance(each, LlvmMerger) else each for each in (merge.merger, merge.quiet))
    return replace(merge, merger=merger, quiet=quiet)


def _parts(tile: Tile, merges: Sequence[TileMerge]) -> Iterator[tuple[int, int]]:
    """Ranges [start, stop) of a tile in each of which every lane accounts for all elements or none."""
    cuts = {0, tile.count}
    for merge in merges:
        cuts.update(chain.from_iterable(merge.ranges(tile)))
    return pairwise(sorted(cuts))


def _copied(tile: Tile, inputs: Sequence[Any]) -> Any:
    """The first input; all others must be equal to it."""
    first = np.asarray(inputs[0])
    for source, other in zip(tile.inputs[1:], inputs[1:], strict=True):
        if not np.array_equal(first.view(np.uint8), np.asarray(other).view(np.uint8)):
            raise CheckpointError(
                f"differs from {tile.inputs[0].where}; {source.dtype.name} tensors are copied, not merged",
                where=source.where,
                hint="Merge models whose integer tensors are identical.",
            )
    return inputs[0]


def _digest(values: np.ndarray, step: int) -> bytes:
    """xxh3 of each block of an input, whose boundaries no tile size moves."""
    octets = np.ascontiguousarray(values).view(np.uint8).data
    size = step * values.itemsize
    return b"".join([xxhash.xxh3_64_digest(octets[i : i + size]) for i in range(0, len(octets), size)])
