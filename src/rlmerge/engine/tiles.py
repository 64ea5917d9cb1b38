"""How tensors are cut: flat tiles that start at block boundaries, or groups of rows where rows must stay together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rlmerge.checkpoint import Source
from rlmerge.kernels.jit import BLOCK
from rlmerge.planning import TensorPlan


@dataclass(frozen=True, slots=True)
class Tile:
    """The flat range [start, stop) of a tensor. ``block`` is the length after which sums are closed."""

    tensor: TensorPlan
    start: int
    stop: int
    block: int = BLOCK

    @property
    def count(self) -> int:
        """Elements of the tile."""
        return self.stop - self.start

    @property
    def nbytes(self) -> int:
        """Bytes of all inputs of the tile."""
        return sum((stop - start) * info.dtype.itemsize for info in self.inputs for start, stop in [self.span(info)])

    @property
    def inputs(self) -> tuple[Source, ...]:
        """Base, experts and further inputs."""
        return self.tensor.inputs

    def span(self, info: Source) -> tuple[int, int]:
        """The flat range the tile needs of an input: its own, but all of an input that is not of the tensor's size."""
        return (self.start, self.stop) if info.numel == self.tensor.output.numel else (0, info.numel)


def cut(tensor: TensorPlan, size: int, *, by_rows: bool = False) -> Iterator[Tile]:
    """Tiles of at most ``size`` elements, at least one block or one row; an empty tensor has none.

    With ``by_rows`` tiles hold whole rows, in groups whose length depends on the tensor alone.
    """
    total = tensor.output.numel
    block = BLOCK
    if by_rows:
        columns = max(1, tensor.columns)
        block = columns * max(1, BLOCK // columns)
    step = max(1, total) if size >= total else max(1, size // block) * block
    for start in range(0, total, step):
        yield Tile(tensor, start, min(total, start + step), block)
