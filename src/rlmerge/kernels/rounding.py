"""Rounding of merged values to the output type: nearest-even or stochastic, with NumPy; kernels do the same in place.

Stochastic rounding (Gupta et al., 2015, arXiv 1502.02551) rounds up with the probability of the remainder, so that the
expected output equals the value: a change below half a step survives in expectation instead of never.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from .dtypes import BFLOAT16, FLOAT16, DType

Rounding = Literal["nearest", "stochastic"]
STOCHASTIC = (BFLOAT16, FLOAT16)
"""Output types that stochastic rounding supports."""


def to_float32_odd(values: np.ndarray) -> np.ndarray:
    """float64 to float32 rounded to odd, so that a second rounding to 16 bits is as if done once."""
    if values.dtype == np.float32:
        return values
    with np.errstate(over="ignore"):
        nearest = values.astype(np.float32)
    back = nearest.astype(np.float64)
    word = nearest.view(np.uint32)
    with np.errstate(invalid="ignore"):
        word = np.where(np.abs(back) > np.abs(values), word - np.uint32(1), word)
        inexact = (back < values) | (back > values)
    return np.where(inexact, word | np.uint32(1), word).view(np.float32)


def encode(
    values: np.ndarray, dtype: DType, rounding: Rounding = "nearest", random_bits: np.ndarray | None = None
) -> np.ndarray:
    """Floats [n] as storage values of ``dtype``; ``random_bits`` uint32 [n] decide stochastic rounding.

    Raises ValueError when ``rounding`` is stochastic and ``dtype`` is neither bfloat16 nor float16.
    """
    if rounding == "stochastic" and dtype not in STOCHASTIC:
        raise ValueError(f"stochastic rounding to {dtype.name} is not defined")
    if dtype is BFLOAT16:
        word = to_float32_odd(values).view(np.uint32)
        if rounding == "stochastic":
            assert random_bits is not None
            rounded = (word + (random_bits >> np.uint32(16))) >> np.uint32(16)
        else:
            rounded = (word + np.uint32(0x7FFF) + ((word >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
        is_nan = (word & np.uint32(0x7FFFFFFF)) > 0x7F800000
        quiet = (word >> np.uint32(16)) | np.uint32(0x40)
        return np.where(is_nan, quiet, rounded).astype(np.uint16)
    if dtype is FLOAT16:
        single = to_float32_odd(values)
        if rounding == "stochastic":
            assert random_bits is not None
            single = _stochastic_half(single, random_bits)
        with np.errstate(over="ignore"):
            return single.astype(np.float16)
    with np.errstate(over="ignore"):
        return values.astype(dtype.storage)


def _stochastic_half(values: np.ndarray, random_bits: np.ndarray) -> np.ndarray:
    """float32 [n] rounded stochastically to values float16 can hold: 13 dropped bits, or steps of 2^-24 below 2^-14."""
    word = values.view(np.uint32)
    normal = ((word + (random_bits >> np.uint32(19))) & np.uint32(0xFFFFE000)).view(np.float32)
    chance = (random_bits >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
    with np.errstate(over="ignore", invalid="ignore"):
        steps = np.abs(values) * np.float32(2.0**24)
        whole = np.floor(steps)
        whole = np.where(steps - whole > chance, whole + np.float32(1), whole)
    small = np.copysign(whole * np.float32(2.0**-24), values)
    rounded = np.where(np.abs(values) < np.float32(2.0**-14), small, normal)
    return np.where(np.isfinite(values), rounded, values)
