"""The codes of quantised weights: what number each stands for, and how they are packed into stored elements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rlmerge.checkpoint.source import Source
from rlmerge.frozen import frozen
from rlmerge.kernels.float8 import E2M1, SmallFloat

PIECE = 1 << 15
"""Elements decoded at a time: NumPy widens the indices of a table lookup to 8 bytes each."""


@frozen
class Integers:
    """Signed integers of ``bits`` bits, as codes in two's complement or ``raised`` by half their range."""

    bits: int
    raised: bool

    @property
    def limit(self) -> float:
        """The number to which the largest magnitude of a block is scaled: half the range."""
        return ((1 << self.bits) - 1) / 2

    @property
    def ends(self) -> tuple[float, float]:
        """The numbers beyond which the nearest code is more than half a step away."""
        half = 1 << (self.bits - 1)
        return -half - 0.5, half - 0.5

    @cached_property
    def values(self) -> np.ndarray:
        """The number of every code, float32."""
        half = 1 << (self.bits - 1)
        codes = np.arange(2 * half)
        numbers = codes - half if self.raised else (codes ^ half) - half
        return numbers.astype(np.float32)

    def encode(self, numbers: np.ndarray) -> np.ndarray:
        """The codes of the nearest integers, ties to even, uint8."""
        half = 1 << (self.bits - 1)
        nearest = np.clip(np.rint(numbers), -half, half - 1).astype(np.int16)
        return (nearest + half if self.raised else nearest & (2 * half - 1)).astype(np.uint8)


@frozen
class Floats:
    """Small floats, of which those without a NaN cannot hold what is not finite."""

    kind: SmallFloat

    @property
    def limit(self) -> float:
        """The largest number."""
        return self.kind.maximum

    @property
    def ends(self) -> tuple[float, float]:
        """The numbers beyond which the nearest code is more than half a step away."""
        top = self.limit + (self.limit - float(self.kind.values[self.kind.largest - 1])) / 2
        return -top, top

    @property
    def values(self) -> np.ndarray:
        """The number of every code, float32."""
        return self.kind.values

    def encode(self, numbers: np.ndarray) -> np.ndarray:
        """The codes of the nearest numbers, ties to even, uint8; NaN for infinity, which would pass for the largest."""
        inside = np.clip(numbers, -self.limit, self.limit)
        return self.kind.encode(np.where(np.isinf(numbers), np.float32(np.nan), inside))

    @property
    def has_nan(self) -> bool:
        return self.kind.nan is not None


Kind = Integers | Floats


class Codes(ABC):
    """The codes of a matrix [rows, columns], packed row by row into ``part``."""

    part: Source
    rows: int
    columns: int
    kind: Kind

    @property
    @abstractmethod
    def width(self) -> int:
        """Elements of ``part`` that hold a row."""

    @abstractmethod
    def unpack(self, stored: np.ndarray, first: int, last: int) -> np.ndarray:
        """Columns [first, last) of stored rows [rows, width], uint8 [rows, last − first]."""

    @abstractmethod
    def pack(self, codes: np.ndarray) -> np.ndarray:
        """Whole rows of codes, uint8 [rows, columns], as stored [rows, width]."""

    def read(self, top: int, first: int, out: np.ndarray) -> None:
        """Fill ``out``, float32 [rows, columns], with numbers from row ``top`` and column ``first`` on."""
        rows, last = len(out), first + out.shape[1]
        stored = self.part.read(top * self.width, (top + rows) * self.width).reshape(-1, self.width)
        step = max(1, PIECE // max(1, last - first))
        for row in range(0, rows, step):
            for column in range(first, last, PIECE):
                end = min(last, column + PIECE)
                codes = self.unpack(stored[row : row + step], column, end)
                out[row : row + step, column - first : end - first] = np.take(self.kind.values, codes, mode="clip")

    def nearest(self, numbers: np.ndarray) -> np.ndarray:
        """The codes nearest to float32 ``numbers``, uint8; ValueError for what is not finite and has no code."""
        has_nan = isinstance(self.kind, Floats) and self.kind.has_nan
        if not has_nan and not np.isfinite(numbers).all():
            raise ValueError("there is no code for a number that is not finite")
        return self.kind.encode(numbers)


@dataclass(slots=True)
class ByteCodes(Codes):
    """One byte a code."""

    part: Source
    rows: int
    columns: int
    kind: Kind

    @property
    def width(self) -> int:
        return self.columns

    def unpack(self, stored: np.ndarray, first: int, last: int) -> np.ndarray:
        return stored[:, first:last].view(np.uint8)

    def pack(self, codes: np.ndarray) -> np.ndarray:
        return codes.view(self.part.dtype.storage)


@frozen
class Fp4Codes(Codes):
    """Two E2M1 codes a byte, the low four bits first; ``columns`` is even."""

    part: Source
    rows: int
    columns: int
    kind: Kind = Floats(E2M1)

    @property
    def width(self) -> int:
        return self.columns // 2

    def unpack(self, stored: np.ndarray, first: int, last: int) -> np.ndarray:
        octets = stored[:, first // 2 : (last + 1) // 2]
        pairs = np.stack([octets & 0xF, octets >> 4], axis=-1).reshape(len(octets), -1)
        return pairs[:, first % 2 :][:, : last - first]

    def pack(self, codes: np.ndarray) -> np.ndarray:
        return codes[:, ::2] | codes[:, 1::2] << 4


@frozen
class WordCodes(Codes):
    """As many codes of ``bits`` bits as fit an int32, from its low end."""

    part: Source
    rows: int
    columns: int
    kind: Kind
    bits: int

    @property
    def width(self) -> int:
        return -(-self.columns * self.bits // 32)

    def unpack(self, stored: np.ndarray, first: int, last: int) -> np.ndarray:
        return unpack(stored, np.arange(first, last), self.bits)

    def pack(self, codes: np.ndarray) -> np.ndarray:
        each = 32 // self.bits
        padded = np.zeros((len(codes), self.width * each), np.uint32)
        padded[:, : self.columns] = codes
        shifts = np.arange(0, 32, self.bits, dtype=np.uint32)
        return np.bitwise_or.reduce(padded.reshape(len(codes), self.width, each) << shifts, axis=-1).view(np.int32)


def unpack(words: np.ndarray, columns: np.ndarray, bits: int) -> np.ndarray:
    """The codes at ``columns`` of packed rows, int32 [rows, width], as uint8."""
    each = 32 // bits
    shift = (columns % each * bits).astype(np.uint32)
    return (words.view(np.uint32)[:, columns // each] >> shift & np.uint32((1 << bits) - 1)).astype(np.uint8)
