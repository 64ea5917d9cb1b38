"""The element types a checkpoint can hold: safetensors code, recipe name, NumPy storage type, arithmetic type."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rlmerge.frozen import frozen


@frozen(slots=True, eq=False)
class DType:
    """One element type, of which there is one object. ``storage`` is how its bytes are viewed: uint16 for bfloat16,
    which NumPy lacks."""

    name: str
    code: str
    storage: np.dtype
    is_float: bool
    itemsize: int

    def __reduce__(self) -> tuple[Callable[[str], DType], tuple[str]]:
        return _named, (self.name,)

    @property
    def arithmetic(self) -> np.dtype:
        """The type merging computes in: float64 for float64, float32 for every other float."""
        return np.dtype(np.float64 if self.name == "float64" else np.float32)


def _dtype(name: str, code: str, storage: str, is_float: bool = False) -> DType:
    return DType(name, code, np.dtype(storage), is_float, np.dtype(storage).itemsize)


BFLOAT16 = _dtype("bfloat16", "BF16", "<u2", True)
FLOAT16 = _dtype("float16", "F16", "<f2", True)
FLOAT32 = _dtype("float32", "F32", "<f4", True)
FLOAT64 = _dtype("float64", "F64", "<f8", True)

MERGEABLE = (BFLOAT16, FLOAT16, FLOAT32, FLOAT64)
"""Float types that can be merged and written."""

ALL = (
    *MERGEABLE,
    _dtype("bool", "BOOL", "|b1"),
    _dtype("uint8", "U8", "|u1"),
    _dtype("int8", "I8", "|i1"),
    _dtype("uint16", "U16", "<u2"),
    _dtype("int16", "I16", "<i2"),
    _dtype("uint32", "U32", "<u4"),
    _dtype("int32", "I32", "<i4"),
    _dtype("uint64", "U64", "<u8"),
    _dtype("int64", "I64", "<i8"),
    _dtype("float8_e4m3fn", "F8_E4M3", "|u1"),
    _dtype("float8_e5m2", "F8_E5M2", "|u1"),
    _dtype("float8_e8m0fnu", "F8_E8M0", "|u1"),
)

BY_CODE = {dtype.code: dtype for dtype in ALL}
BY_NAME = {dtype.name: dtype for dtype in ALL}


def _named(name: str) -> DType:
    return BY_NAME[name]


def decode(array: np.ndarray, dtype: DType) -> np.ndarray:
    """Storage values as floats of ``dtype.arithmetic``: a copy for 16-bit types, ``array`` itself otherwise."""
    if dtype is BFLOAT16:
        return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return array.astype(dtype.arithmetic, copy=False)
