"""One pass over a tile, a block at a time: read it, digest it, and hand it to every kernel while it is in the cache.

The loop is machine code, so that a tile costs one call from Python, whatever the number of its blocks and kernels.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import xxhash

from .compiler import compile_kernel, find_host
from .jit import CALL, Call


class Input(NamedTuple):
    """Where the elements of a tile come from.

    Of the open file ``fd`` from byte ``offset`` on, by way of ``address``, memory for a block; or, without a file (-1),
    from ``address`` on, where all of them lie. Elements have ``itemsize`` bytes.
    """

    fd: int
    offset: int
    itemsize: int
    address: int


def run_blocks(
    calls: Sequence[Call], inputs: Sequence[Input], count: int, start: int, step: int, digested: bool
) -> np.ndarray | None:
    """Have every call's kernel run on the ``count`` elements from flat index ``start`` on, ``step`` at a time.

    The calls were made for so many elements and steps. Returns the XXH3 of each block of each input, uint64
    [inputs, blocks], empty unless ``digested``. None when a file could not be read; what was written then is void.
    """
    blocks = -(-count // step)
    digests = np.empty((len(inputs), blocks) if digested else (0, 0), np.uint64)
    table = np.array(inputs, np.int64)
    pointers = np.empty(len(inputs), np.uint64)
    words = np.array([call.words for call in calls], np.uint64)
    _, function, read = _driver()
    failed = function(
        count,
        start,
        step,
        len(inputs),
        table.ctypes.data,
        pointers.ctypes.data,
        len(calls),
        words.ctypes.data,
        read,
        xxh3() if digested else None,
        digests.ctypes.data,
        blocks,
    )
    return None if failed else digests


@cache
def xxh3() -> int | None:
    """The address of XXH3-64 in the binary of the package xxhash; None where it does not show it, as builds may."""
    try:
        library = ctypes.CDLL(xxhash._xxhash.__file__)  # pyright: ignore[reportAttributeAccessIssue]
    except (AttributeError, OSError):
        return None
    probe = bytes(range(256)) * 5
    for name in ("XXH3_64bits_dispatch", "XXH3_64bits"):
        function = getattr(library, name, None)
        if function is not None:
            function.argtypes, function.restype = (ctypes.c_char_p, ctypes.c_size_t), ctypes.c_uint64
            if function(probe, len(probe)) == xxhash.xxh3_64_intdigest(probe):
                return ctypes.cast(function, ctypes.c_void_p).value
    return None


_FUNCTION = ctypes.CFUNCTYPE(
    ctypes.c_int64,
    *([ctypes.c_int64] * 4),
    *([ctypes.c_void_p] * 2),
    ctypes.c_int64,
    *([ctypes.c_void_p] * 4),
    ctypes.c_int64,
)


@cache
def _driver() -> tuple[object, Callable[..., int], int]:
    """The engine that owns the code, the function, and the address of ``pread``."""
    engine, address = compile_kernel(module(), find_host())
    read = ctypes.cast(ctypes.CDLL(None).pread, ctypes.c_void_p).value
    assert read is not None
    return engine, _FUNCTION(address), read


def module() -> str:
    """LLVM IR of ``@kernel``: how many of the inputs could not be read, counted from the first, or 0."""
    lines = list[str]()
    for index, (name, kind, step) in enumerate(CALL):
        lines.append(f"%{name}.at = getelementptr inbounds i64, ptr %call, i64 {index}")
        lines.append(f"%{name}.first = load i64, ptr %{name}.at")
        value = f"%{name}.first"
        if step:
            lines.append(f"%{name}.done = mul i64 %b, %{name}.step")
            lines.append(f"%{name}.here = add i64 {value}, %{name}.done")
            value = f"%{name}.here"
        lines.append(f"%{name} = inttoptr i64 {value} to ptr" if kind == "ptr" else f"%{name} = add i64 {value}, 0")
    # A stride is loaded before what it moves.
    strides = [
        line
        for name, _, step in CALL
        if step
        for line in (
            f"%{name}.step.at = getelementptr inbounds i64, ptr %call, i64 {len(CALL) + _steps().index(name)}",
            f"%{name}.step = load i64, ptr %{name}.step.at",
        )
    ]
    passed = ", ".join(f"{kind} %{name}" for name, kind, _ in CALL[1:])
    first, _, rest = passed.partition(", ptr %out")
    return _MODULE.format(
        words=len(CALL) + len(_steps()), loads="\n".join([*strides, *lines]), first=first, rest=f"ptr %out{rest}"
    )


def _steps() -> list[str]:
    return [name for name, _, step in CALL if step]


_MODULE = """
define i64 @kernel(i64 %n, i64 %start, i64 %step, i64 %inputs, ptr %table, ptr %pointers, i64 %calls, ptr %words,
                   ptr %read, ptr %hash, ptr %digests, i64 %blocks) {{
entry:
  %k.slot = alloca i64
  %l.slot = alloca i64
  %b.slot = alloca i64
  %got.slot = alloca i64
  store i64 0, ptr %b.slot
  br label %block.head
block.head:
  %b = load i64, ptr %b.slot
  %position = mul i64 %b, %step
  %b.more = icmp slt i64 %position, %n
  br i1 %b.more, label %block.body, label %done
block.body:
  %left = sub i64 %n, %position
  %cut = icmp slt i64 %left, %step
  %count = select i1 %cut, i64 %left, i64 %step
  store i64 0, ptr %k.slot
  br label %input.head
input.head:
  %k = load i64, ptr %k.slot
  %k.more = icmp slt i64 %k, %inputs
  br i1 %k.more, label %input.body, label %call.first
input.body:
  %k.row = mul i64 %k, 4
  %fd.at = getelementptr inbounds i64, ptr %table, i64 %k.row
  %offset.at = getelementptr inbounds i64, ptr %fd.at, i64 1
  %size.at = getelementptr inbounds i64, ptr %fd.at, i64 2
  %memory.at = getelementptr inbounds i64, ptr %fd.at, i64 3
  %fd = load i64, ptr %fd.at
  %offset = load i64, ptr %offset.at
  %size = load i64, ptr %size.at
  %memory = load i64, ptr %memory.at
  %bytes = mul i64 %count, %size
  %skip = mul i64 %position, %size
  %k.pointer = getelementptr inbounds i64, ptr %pointers, i64 %k
  %is.file = icmp sge i64 %fd, 0
  br i1 %is.file, label %read.first, label %given
given:
  %given.at = add i64 %memory, %skip
  store i64 %given.at, ptr %k.pointer
  br label %hash.head
read.first:
  store i64 %memory, ptr %k.pointer
  store i64 0, ptr %got.slot
  %file.at = add i64 %offset, %skip
  %file = trunc i64 %fd to i32
  br label %read.head
read.head:
  %got = load i64, ptr %got.slot
  %read.more = icmp slt i64 %got, %bytes
  br i1 %read.more, label %read.body, label %hash.head
read.body:
  %to.word = add i64 %memory, %got
  %to = inttoptr i64 %to.word to ptr
  %want = sub i64 %bytes, %got
  %from = add i64 %file.at, %got
  %count.read = call i64 %read(i32 %file, ptr %to, i64 %want, i64 %from)
  %failed = icmp sle i64 %count.read, 0
  br i1 %failed, label %unread, label %read.next
read.next:
  %got.next = add i64 %got, %count.read
  store i64 %got.next, ptr %got.slot
  br label %read.head
unread:
  %which = add i64 %k, 1
  ret i64 %which
hash.head:
  %hashes = icmp ne ptr %hash, null
  br i1 %hashes, label %hash.body, label %input.next
hash.body:
  %hashed.word = load i64, ptr %k.pointer
  %hashed = inttoptr i64 %hashed.word to ptr
  %digest = call i64 %hash(ptr %hashed, i64 %bytes)
  %digest.row = mul i64 %k, %blocks
  %digest.index = add i64 %digest.row, %b
  %digest.at = getelementptr inbounds i64, ptr %digests, i64 %digest.index
  store i64 %digest, ptr %digest.at
  br label %input.next
input.next:
  %k.next = add i64 %k, 1
  store i64 %k.next, ptr %k.slot
  br label %input.head
call.first:
  %here = add i64 %start, %position
  store i64 0, ptr %l.slot
  br label %call.head
call.head:
  %l = load i64, ptr %l.slot
  %l.more = icmp slt i64 %l, %calls
  br i1 %l.more, label %call.body, label %block.next
call.body:
  %l.row = mul i64 %l, {words}
  %call = getelementptr inbounds i64, ptr %words, i64 %l.row
  {loads}
  call void %function(i64 %count, i64 %here, {first}, ptr %pointers, {rest})
  %l.next = add i64 %l, 1
  store i64 %l.next, ptr %l.slot
  br label %call.head
block.next:
  %b.next = add i64 %b, 1
  store i64 %b.next, ptr %b.slot
  br label %block.head
done:
  ret i64 0
}}
"""
