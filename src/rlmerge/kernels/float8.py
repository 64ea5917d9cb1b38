"""Floats of 8 and 4 bits, which NumPy lacks: their values, and rounding to them.

E4M3 (without infinities, "fn") and E5M2 are those of Micikevicius et al. (2022, arXiv 2209.05433); E2M1 and E8M0, which
has an exponent alone, those of the OCP Microscaling Formats specification, version 1.0 (2023).
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from rlmerge.frozen import frozen


@frozen
class SmallFloat:
    """A sign, exponent and mantissa in one byte; E2M1 uses its low four bits.

    ``largest`` is the code of the largest finite magnitude. Beyond it values become the code ``overflow``, and NaN
    becomes ``nan`` (None where the format has none).
    """

    exponent: int
    mantissa: int
    largest: int
    overflow: int
    nan: int | None

    @property
    def sign(self) -> int:
        """The code's sign bit."""
        return 1 << (self.exponent + self.mantissa)

    @property
    def bias(self) -> int:
        """What is taken from the stored exponent."""
        return (1 << (self.exponent - 1)) - 1

    @property
    def maximum(self) -> float:
        """The largest finite value."""
        return float(self.values[self.largest])

    @cached_property
    def values(self) -> np.ndarray:
        """The value of every code, float32 [2 × ``sign``]."""
        codes = np.arange(self.sign)
        fraction = codes & ((1 << self.mantissa) - 1)
        power = codes >> self.mantissa
        normal = np.ldexp(1.0 + fraction / (1 << self.mantissa), power - self.bias)
        magnitudes = np.where(power > 0, normal, np.ldexp(fraction / (1 << self.mantissa), 1 - self.bias))
        beyond = codes > self.largest
        magnitudes[beyond] = np.where(codes[beyond] == self.overflow, np.inf, np.nan)
        return _frozen(np.concatenate([magnitudes, -magnitudes]).astype(np.float32))

    def encode(self, values: np.ndarray) -> np.ndarray:
        """float32 as codes, uint8: to nearest, ties to even, as torch casts. ValueError for a NaN that has no code."""
        word = np.ascontiguousarray(values, np.float32).view(np.uint32)
        magnitude = word & np.uint32(0x7FFFFFFF)
        drop = 23 - self.mantissa
        half = np.uint32((1 << (drop - 1)) - 1)
        even = (magnitude >> np.uint32(drop)) & np.uint32(1)
        shifted = (magnitude + half + even) >> np.uint32(drop)
        code = shifted - np.uint32((127 - self.bias) << self.mantissa)
        # Below the smallest normal value steps have one size: adding 2^23 of them leaves their number in the low bits.
        step = np.float32(2.0 ** (1 - self.bias - self.mantissa + 23))
        small = magnitude < np.uint32((128 - self.bias) << 23)
        tiny = np.where(small, magnitude, np.uint32(0)).view(np.float32)
        code = np.where(small, (tiny + step).view(np.uint32) - step.view(np.uint32), code)
        code = np.where((code > self.largest) | (magnitude >= 0x7F800000), np.uint32(self.overflow), code)
        is_nan = magnitude > 0x7F800000
        if self.nan is not None:
            code = np.where(is_nan, np.uint32(self.nan), code)
        elif is_nan.any():
            raise ValueError("this format has no code for NaN")
        return (code | np.where(word >> np.uint32(31), np.uint32(self.sign), np.uint32(0))).astype(np.uint8)


def _frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


E4M3 = SmallFloat(4, 3, largest=0x7E, overflow=0x7E, nan=0x7F)
E5M2 = SmallFloat(5, 2, largest=0x7B, overflow=0x7C, nan=0x7F)
E2M1 = SmallFloat(2, 1, largest=0x7, overflow=0x7, nan=None)

E8M0_VALUES = _frozen(np.append(np.ldexp(1.0, np.arange(255) - 127), np.nan).astype(np.float32))
"""Powers of two from 2^-127 to 2^127 by code, float32 [256]; 255 is NaN."""


def encode_e8m0(values: np.ndarray) -> np.ndarray:
    """Positive float32 [n] as the codes of the next power of two that is not smaller, uint8 [n]; 0 for what is less.

    Values beyond 2^127, infinity and NaN become the code of NaN.
    """
    fraction, power = np.frexp(np.asarray(values, np.float32))
    code = np.where(fraction == 0, 0, power + np.where(fraction > 0.5, 127, 126))
    return np.where(np.isfinite(fraction), np.clip(code, 0, 255), 255).astype(np.uint8)
