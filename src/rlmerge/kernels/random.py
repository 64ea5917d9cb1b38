"""Counter-based random numbers: a hash of key and flat index, so that tiles, workers and resume never matter.

The key is a digest of what the stream belongs to (seed, purpose, expert, tensor); the counter is the entry's flat
index. Each 32-bit word passes twice through a bijective xor-shift-multiply mixer. The same integers come out of the
NumPy version below, of the traced kernels and of torch.
"""

from __future__ import annotations

import hashlib

import numpy as np

MIXER = ((16, 0x21F0AAAD), (15, 0xD35A2D97), (15, None))
"""Shift and multiplier of each step of the mixer; the last step only shifts."""

HIGH_WORD = 0x9E3779B1
"""Odd multiplier that folds the upper half of the index into the second round."""


def stream_key(*labels: object) -> tuple[int, int]:
    """Two 32-bit keys for the stream that ``labels`` name, equal on every machine and in every process."""
    digest = hashlib.blake2b("\x1f".join(map(str, labels)).encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


def _mix(word: np.ndarray) -> np.ndarray:
    for shift, multiplier in MIXER:
        word = word ^ (word >> np.uint32(shift))
        if multiplier is not None:
            word = word * np.uint32(multiplier)
    return word


def bits(key: tuple[int, int], start: int, count: int) -> np.ndarray:
    """Random uint32 [count] for flat indices ``start`` … ``start + count``."""
    index = np.arange(start, start + count, dtype=np.uint64)
    low = (index & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    high = (index >> np.uint64(32)).astype(np.uint32)
    first = _mix(low ^ np.uint32(key[0]))
    return _mix(first ^ (high * np.uint32(HIGH_WORD) + np.uint32(key[1])))


def uniform(key: tuple[int, int], start: int, count: int, dtype: np.dtype | type = np.float32) -> np.ndarray:
    """Uniform numbers [count] in [0, 1): the upper 24 bits of ``bits`` times 2^-24, exact in float32."""
    return (bits(key, start, count) >> np.uint32(8)).astype(dtype) * np.asarray(2.0**-24, dtype)
