"""Methods that need a tensor in one piece and in its own shape, such as products of matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rlmerge.kernels.dtypes import decode
from rlmerge.kernels.jit import BLOCK
from rlmerge.kernels.program import Layout

from .compute import Keys
from .pieces import Decoded, Numbers, Rounder, decode_tile, together
from .rows import on_shape
from .tiles import Tile
from .values import Values


class WholeMerger:
    """Merges one tensor, given as a single tile: the formula sees ``base`` and ``tau`` as [*shape] and [K, *shape].

    Further inputs arrive as a list of arrays in their own shapes.
    """

    def __init__(
        self, formula: Any, layout: Layout, values: Values, keys: Keys, *, rounder: Rounder, zero: bool
    ) -> None:
        self.formula = formula
        self.layout = layout
        self.values = values
        self.keys = keys
        self.rounder = rounder
        self.zero = zero

    def __call__(self, tile: Tile, inputs: Sequence[np.ndarray], buffer: np.ndarray) -> Numbers:
        """Merge the tensor into ``buffer`` [numel], in storage values of the output type."""
        found = decode_tile(inputs, self.layout, {}, self.zero, self.layout.real)
        merged = on_shape(
            self.formula,
            found.base,
            found.stack,
            self.values,
            shape=tile.tensor.output.shape,
            extras=self._further(tile, inputs[len(self.layout.inputs) :]),
            keys=self.keys,
            start=0,
        )
        flat = np.broadcast_to(merged.astype(self.layout.real, copy=False), tile.tensor.output.shape).reshape(-1)
        return together(
            [
                self.rounder(flat[i : i + BLOCK], _piece(found, i), i, buffer[i : i + BLOCK])
                for i in range(0, tile.count, BLOCK)
            ]
        )

    def _further(self, tile: Tile, arrays: Sequence[np.ndarray]) -> dict[str, list[np.ndarray]]:
        left = iter(arrays)
        return {
            name: [decode(next(left), info.dtype).astype(self.layout.real).reshape(info.shape) for info in infos]
            for name, infos in tile.tensor.extras.items()
        }


def _piece(found: Decoded, start: int) -> Decoded:
    """The range of ``BLOCK`` coordinates from ``start``, for accounting."""
    part = slice(start, start + BLOCK)
    return replace(
        found,
        base=None if found.base is None else found.base[part],
        stack=found.stack[:, part],
        deltas=None if found.deltas is None else found.deltas[:, part],
    )
