"""Awkward tiles, bit comparison, and a merge of one tile written with NumPy only."""

import numpy as np

from rlmerge.kernels.dtypes import BFLOAT16, FLOAT64, decode
from rlmerge.kernels.namespace import NumpyNamespace
from rlmerge.kernels.rounding import encode
from rlmerge.kernels.values import on_tile

SPECIAL = (0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 2.0**-126, 2.0**-133, 3e38, -3e38, 65504, 6e-8)
"""Zeros, infinities, NaN, and the ends and subnormals of float32, bfloat16 and float16."""


def store(values, dtype):
    """float64 values as storage elements of ``dtype``, by way of NumPy's own casts."""
    with np.errstate(over="ignore"):
        if dtype is BFLOAT16:
            return (np.asarray(values, np.float32).view(np.uint32) >> np.uint32(16)).astype(np.uint16)
        return np.asarray(values).astype(dtype.storage)


def awkward(rng, n, dtype, special=True):
    """Random storage elements [n] over many magnitudes, a tenth of them special unless told otherwise."""
    values = rng.standard_normal(n) * 2.0 ** rng.integers(-12, 12, n)
    if special:
        values = np.where(rng.random(n) < 0.1, rng.choice(SPECIAL, n), values)
    return store(values, dtype)


def expert_of(rng, base, dtype):
    """A copy of ``base`` in which about half of the entries moved a little."""
    values = decode(base, dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        moved = values * (1 + rng.standard_normal(len(base)).astype(values.dtype) / 8)
    return np.where(rng.random(len(base)) < 0.5, store(moved, dtype), base)


def unaligned(array):
    """A copy of ``array`` that starts at an odd address."""
    buffer = np.zeros(array.nbytes + 65, np.uint8)
    offset = 1 - buffer.ctypes.data % 2
    view = buffer[offset : offset + array.nbytes].view(array.dtype)
    view[:] = array
    return view


def same(found, expected):
    """Whether two float arrays have equal bits, where any NaN equals any other."""
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    words = f"u{found.dtype.itemsize}"
    return bool(np.all((found.view(words) == expected.view(words)) | (np.isnan(found) & np.isnan(expected))))


def same_stored(found, expected, dtype):
    """``same`` for storage elements of ``dtype``."""
    return same(decode(found, dtype), decode(expected, dtype))


def on_numpy(formula, layout, arrays, values, *, start=0, columns=1, extra=None):
    """What ``formula`` returns on NumPy for storage ``arrays``, with decoded base and task vectors."""
    real = layout.real
    with np.errstate(all="ignore"):
        decoded = [decode(x, dtype).astype(real) for x, dtype in zip(arrays, layout.inputs, strict=True)]
        base, experts = (None, decoded) if layout.base is None else (decoded[0], decoded[1:])
        deltas = np.stack([x - base for x in experts]) if base is not None else None
        ready = {**on_tile(values, real, start, len(arrays[0]), columns), **(extra or {})}
        result = formula(NumpyNamespace(real), base, deltas if layout.deltas else np.stack(experts), **ready)
    return result, base, deltas


def merged_on_numpy(formula, layout, arrays, values, out, *, keeps_base=True, rounding="nearest", bits=None, **where):
    """Storage elements [n] of type ``out``, the reference for ``merge_kernel``; also merged, base and deltas."""
    result, base, deltas = on_numpy(formula, layout, arrays, values, **where)
    merged = np.broadcast_to(np.asarray(result, layout.real), arrays[0].shape)
    if base is not None and keeps_base:
        merged = np.where((deltas != 0).any(axis=0), merged, base)
    return encode(np.ascontiguousarray(merged), out, rounding, bits), merged, base, deltas


def widest(dtypes):
    """float64 if any of ``dtypes`` is, else float32."""
    return np.dtype(np.float64 if FLOAT64 in dtypes else np.float32)
