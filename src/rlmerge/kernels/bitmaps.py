"""One bit an element, the first in the lowest bit of a byte: which elements differ, and values put where they do."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

import numpy as np

from .compiler import compile_kernel, find_host


def differing(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Where two arrays of equal length and type differ in bits, bool [n]: zeros of other sign and other NaNs count."""
    return _words(one) != _words(other)


def pack(mask: np.ndarray) -> np.ndarray:
    """bool [n] as a bitmap, uint8 [⌈n / 8⌉]."""
    return np.packbits(mask, bitorder="little")


def count(bitmap: np.ndarray) -> int:
    """How many bits of whole words are set; ``bitmap`` is uint8 [8 · words]."""
    return int(np.bitwise_count(bitmap.view(np.uint64)).sum(dtype=np.int64))


def unpack(bitmap: np.ndarray, n: int) -> np.ndarray:
    """The first ``n`` bits as bool [n]."""
    return np.unpackbits(bitmap, count=n, bitorder="little").view(np.bool_)


def scatter(target: np.ndarray, mask: np.ndarray, values: np.ndarray) -> None:
    """Write ``values``, in order, to the elements of ``target`` where ``mask`` is set; as many as there are values."""
    _words(target)[np.flatnonzero(mask)] = _words(values)


def scatter_words(target: np.ndarray, bitmap: np.ndarray, values: np.ndarray) -> None:
    """As ``scatter``, by the bits of a bitmap of whole words, uint8 [8 · words], in machine code.

    ValueError unless every bit stands for an element of ``target`` and has a value, which would write elsewhere.
    """
    words = len(bitmap) // 8
    beyond = words * 64 - len(target)
    spare = beyond > 0 and int(bitmap[-8:].view(np.uint64)[0]) >> (64 - beyond) if beyond < 64 else beyond
    arrays = (target, bitmap, values)
    if spare or count(bitmap) != len(values) or any(not array.flags.c_contiguous for array in arrays):
        raise ValueError("the bits do not fit the elements and their values")
    _scatter(target.itemsize)(target.ctypes.data, bitmap.ctypes.data, words, values.ctypes.data)


_SCATTER = """
declare i64 @llvm.cttz.i64(i64, i1)

define void @kernel(ptr %target, ptr %bits, i64 %words, ptr %values) {{
entry:
  %empty = icmp eq i64 %words, 0
  br i1 %empty, label %done, label %word
word:
  %index = phi i64 [ 0, %entry ], [ %index.next, %next ]
  %taken = phi i64 [ 0, %entry ], [ %taken.next, %next ]
  %at = getelementptr i64, ptr %bits, i64 %index
  %all = load i64, ptr %at, align 1
  %first = shl i64 %index, 6
  %none = icmp eq i64 %all, 0
  br i1 %none, label %next, label %bit
bit:
  %left = phi i64 [ %all, %word ], [ %left.next, %bit ]
  %number = phi i64 [ %taken, %word ], [ %number.next, %bit ]
  %lowest = call i64 @llvm.cttz.i64(i64 %left, i1 true)
  %place = add i64 %first, %lowest
  %from = getelementptr {type}, ptr %values, i64 %number
  %value = load {type}, ptr %from, align 1
  %to = getelementptr {type}, ptr %target, i64 %place
  store {type} %value, ptr %to, align 1
  %number.next = add i64 %number, 1
  %less = sub i64 %left, 1
  %left.next = and i64 %left, %less
  %more = icmp ne i64 %left.next, 0
  br i1 %more, label %bit, label %next
next:
  %taken.next = phi i64 [ %taken, %word ], [ %number.next, %bit ]
  %index.next = add i64 %index, 1
  %again = icmp ult i64 %index.next, %words
  br i1 %again, label %word, label %done
done:
  ret void
}}
"""
_POINTER = ctypes.c_void_p
_FUNCTION = ctypes.CFUNCTYPE(None, _POINTER, _POINTER, ctypes.c_int64, _POINTER)


@cache
def _scatter(itemsize: int) -> Callable[[int, int, int, int], None]:
    """The compiled loop for elements of ``itemsize`` bytes."""
    engine, address = compile_kernel(_SCATTER.format(type=f"i{8 * itemsize}"), find_host())
    function = _FUNCTION(address)

    def run(target: int, bitmap: int, words: int, values: int, engine: object = engine) -> None:
        function(target, bitmap, words, values)

    return run


def _words(array: np.ndarray) -> np.ndarray:
    """The same bytes as unsigned integers, which compare and copy bit by bit."""
    return array.view(np.dtype(f"u{array.dtype.itemsize}"))
