"""How tensors are cut: flat tiles that start at block boundaries, or groups of rows where rows must stay together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rlmerge.checkpoint import Source
from rlmerge.kernels.jit import BLOCK

from .job import Job


@dataclass(slots=True)  # not frozen, which takes thrice as long to make
class Tile:
    """The flat range [start, stop) of a job. ``block`` is the length after which sums are closed.

    ``width`` are the bytes of all inputs an element, where every input has as many elements as the job.
    """

    job: Job
    start: int
    stop: int
    block: int = BLOCK
    width: int | None = None

    @property
    def count(self) -> int:
        """Elements of the tile."""
        return self.stop - self.start

    @property
    def nbytes(self) -> int:
        """Bytes of all inputs of the tile."""
        if self.width is not None:
            return self.count * self.width
        return sum((stop - start) * s.dtype.itemsize for s in self.inputs for start, stop in [self.span(s)])

    @property
    def inputs(self) -> tuple[Source, ...]:
        """Base, experts and further inputs."""
        return self.job.inputs

    def span(self, source: Source) -> tuple[int, int]:
        """The flat range the tile needs of an input: its own, but all of an input that is not of the tensor's size."""
        even = self.width is not None or source.numel == self.job.output.numel
        return (self.start, self.stop) if even else (0, source.numel)

    def of(self, job: Job) -> Tile:
        """The same range of another job with the same inputs."""
        return self if job is self.job else Tile(job, self.start, self.stop, self.block, self.width)

    def part(self, start: int, stop: int) -> Tile:
        """Elements [start, stop) of the tile, counted from its first."""
        whole = start == 0 and stop == self.count
        return self if whole else Tile(self.job, self.start + start, self.start + stop, self.block, self.width)


MATRIX_TILE = 1 << 20
"""Elements of the groups of rows that a statistic of a matrix is added up from: part of the arithmetic."""


def cut(job: Job, size: int, *, by_rows: bool = False) -> Iterator[Tile]:
    """Tiles of at most ``size`` elements, at least one block or one row; an empty tensor has none.

    With ``by_rows`` tiles hold whole rows, in groups whose length depends on the tensor alone.
    """
    total = job.output.numel
    block = row_block(job.columns) if by_rows else BLOCK
    width = job.width
    step = max(1, total) if size >= total else max(1, size // block) * block
    if not by_rows and step < total:
        # As many tiles as that takes, but of about one length.
        step = -(-total // (-(-total // step) * block)) * block
    for start in range(0, total, step):
        yield Tile(job, start, min(total, start + step), block, width)


def row_block(columns: int) -> int:
    """Elements of the smallest group of whole rows: as many rows as fit a block, at least one."""
    columns = max(1, columns)
    return columns * max(1, BLOCK // columns)
