"""Weights scaled and with normal noise, as a source: the same numbers whatever the tiles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlmerge.checkpoint.compose import Renamed
from rlmerge.checkpoint.source import Scratch, Source, combined
from rlmerge.kernels.dtypes import FLOAT32, FLOAT64, DType, decode
from rlmerge.kernels.random import bits, stream_key


def normal(key: tuple[object, ...], start: int, count: int) -> np.ndarray:
    """Standard normal float64 [count] for flat indices ``start`` … ``start + count`` of the stream ``key``.

    Box and Muller (1958), of two hashed 32-bit words an entry; each lies in the middle of its step, so that no
    logarithm is of 0 and magnitudes end at sqrt(2 ln 2^33) = 6.8.
    """
    first, second = (
        (bits(stream_key(*key, half), start, count).astype(np.float64) + 0.5) * 2.0**-32 for half in ("radius", "angle")
    )
    return np.sqrt(-2.0 * np.log(first)) * np.cos(2.0 * np.pi * second)


class Adjusted(Renamed):
    """``scale * (source + noise * n)`` with standard normal n from the stream ``key``.

    It is given in ``dtype``, float32 or float64; by default in the wider of float32 and the source's type.
    """

    def __init__(
        self,
        source: Source,
        name: str,
        scale: float,
        noise: float,
        key: tuple[object, ...],
        dtype: DType | None = None,
    ) -> None:
        super().__init__(source, name)
        self.scale = scale
        self.noise = noise
        self.key = key
        self.dtype = dtype or wide([source])

    @property
    def scratch(self) -> Scratch:
        inner = self.source.scratch
        return Scratch(inner.fixed, inner.per_element + self.dtype.itemsize + (48 if self.noise else 8))

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        start, stop = self.span(start, stop)
        values = decode(self.source.read(start, stop), self.source.dtype).astype(np.float64)
        if self.noise:
            values += self.noise * normal(self.key, start, stop - start)
        values *= self.scale
        found = values.astype(self.dtype.storage)
        found.flags.writeable = False
        return found

    def fingerprint(self, whole: bool) -> bytes:
        return combined("adjusted", [self.source], whole, scale=self.scale, noise=self.noise, key=self.key)


def wide(sources: Sequence[Source]) -> DType:
    """The type in which all of ``sources`` can be given without a loss: float32, or float64 where one has that."""
    return FLOAT64 if any(source.dtype is FLOAT64 for source in sources) else FLOAT32


def adjusted(source: Source, name: str, scale: float, noise: float, key: tuple[object, ...]) -> Source:
    """``Adjusted``, or the values as they are stored where that changes nothing."""
    if scale == 1.0 and noise == 0.0:
        return Renamed(source, name)
    return Adjusted(source, name, scale, noise, key)
