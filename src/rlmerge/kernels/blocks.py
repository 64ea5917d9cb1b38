"""One pass over a tile, a block at a time: read it, digest it, and hand it to every kernel while it is in the cache.

The loop is machine code, so that a tile costs one call from Python, whatever the number of its blocks and kernels.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain
from typing import NamedTuple

import numpy as np
import xxhash

from .calls import CALL, Step, address
from .compiler import compile_kernel, find_host
from .emit import loop


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
    calls: Sequence[Step],
    inputs: Sequence[Input],
    count: int,
    start: int,
    step: int,
    digested: bool,
    stride: int | None = None,
) -> np.ndarray | None:
    """Have every call's kernel run on the ``count`` elements from flat index ``start`` on, ``step`` at a time.

    With a ``stride``, steps begin so many elements apart, and what is between them is left out. The calls were made for
    so many elements and steps. Returns the XXH3 of each block of each input, uint64 [inputs, blocks], empty unless
    ``digested``. None when a file could not be read; what was written then is void.
    """
    blocks = -(-count // step)
    digests = np.empty((len(inputs), blocks) if digested else (0, 0), np.uint64)
    # Room for the pointers, the inputs, and the words of the calls, in one array.
    given = [*(0 for _ in inputs), *chain.from_iterable(inputs), *chain.from_iterable(call.words for call in calls)]
    words = np.array(given, np.int64)
    place = address(words)
    _, function, read = _driver()
    failed = function(
        count,
        start,
        step,
        step if stride is None else stride,
        len(inputs),
        place + 8 * len(inputs),
        place,
        len(calls),
        place + 8 * len(inputs) * (1 + len(Input._fields)),
        read,
        xxh3() if digested else None,
        address(digests),
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
    *([ctypes.c_int64] * 5),
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
    return "\n".join(
        [
            "define i64 @kernel(i64 %n, i64 %start, i64 %step, i64 %stride, i64 %inputs, ptr %table, ptr %pointers, "
            "i64 %calls, ptr %words, ptr %read, ptr %hash, ptr %digests, i64 %blocks) {",
            *(f"%{name} = alloca i64" for name in ("b.at", "k.at", "l.at", "got.at")),
            *loop(
                "b",
                "%blocks",
                "%done = mul i64 %b, %step",
                "%left = sub i64 %n, %done",
                "%position = mul i64 %b, %stride",
                "%cut = icmp slt i64 %left, %step",
                "%count = select i1 %cut, i64 %left, i64 %step",
                "%here = add i64 %start, %position",
                *loop("k", "%inputs", *_read(), *_digest()),
                *loop("l", "%calls", *_call()),
            ),
            "ret i64 0",
            "unread:",
            "%which = add i64 %k, 1",
            "ret i64 %which",
            "}",
        ]
    )


def _read() -> list[str]:
    """Make ``%data`` point to the block of input ``%k``, of ``%bytes``, and put that into the pointers."""
    return [
        "%k.row = mul i64 %k, 4",
        *(
            line
            for index, name in enumerate(Input._fields)
            for line in (
                f"%{name}.index = add i64 %k.row, {index}",
                f"%{name}.from = getelementptr inbounds i64, ptr %table, i64 %{name}.index",
                f"%{name} = load i64, ptr %{name}.from",
            )
        ),
        "%bytes = mul i64 %count, %itemsize",
        "%skip = mul i64 %position, %itemsize",
        "%is.file = icmp sge i64 %fd, 0",
        "%given = add i64 %address, %skip",
        "%data.word = select i1 %is.file, i64 %address, i64 %given",
        "%data = inttoptr i64 %data.word to ptr",
        "%k.pointer = getelementptr inbounds ptr, ptr %pointers, i64 %k",
        "store ptr %data, ptr %k.pointer",
        "store i64 0, ptr %got.at",
        "%first = add i64 %offset, %skip",
        "%file = trunc i64 %fd to i32",
        "br i1 %is.file, label %read.head, label %read.done",
        "read.head:",
        "%got = load i64, ptr %got.at",
        "%read.more = icmp slt i64 %got, %bytes",
        "br i1 %read.more, label %read.body, label %read.done",
        "read.body:",
        "%to = getelementptr inbounds i8, ptr %data, i64 %got",
        "%want = sub i64 %bytes, %got",
        "%from = add i64 %first, %got",
        "%came = call i64 %read(i32 %file, ptr %to, i64 %want, i64 %from)",
        "%got.next = add i64 %got, %came",
        "store i64 %got.next, ptr %got.at",
        "%failed = icmp sle i64 %came, 0",
        "br i1 %failed, label %unread, label %read.head",
        "read.done:",
    ]


def _digest() -> list[str]:
    """Digest the block of input ``%k``, if that is wanted."""
    return [
        "%hashes = icmp ne ptr %hash, null",
        "br i1 %hashes, label %hash.body, label %hash.done",
        "hash.body:",
        "%digest = call i64 %hash(ptr %data, i64 %bytes)",
        "%digest.row = mul i64 %k, %blocks",
        "%digest.index = add i64 %digest.row, %b",
        "%digest.at = getelementptr inbounds i64, ptr %digests, i64 %digest.index",
        "store i64 %digest, ptr %digest.at",
        "br label %hash.done",
        "hash.done:",
    ]


def _call() -> list[str]:
    """Run the kernel of call ``%l`` on the block."""
    steps = [name for name, _, step in CALL if step]
    lines = [
        f"%l.row = mul i64 %l, {len(CALL) + len(steps)}",
        "%call = getelementptr inbounds i64, ptr %words, i64 %l.row",
    ]
    for index, name in enumerate((*(name for name, _, _ in CALL), *(f"{name}.step" for name in steps))):
        lines.append(f"%{name}.from.call = getelementptr inbounds i64, ptr %call, i64 {index}")
        lines.append(f"%{name}.word = load i64, ptr %{name}.from.call")
    arguments: list[str] = []
    for name, kind, step in CALL:
        value = f"%{name}.word"
        if step:
            lines.append(f"%{name}.moved = mul i64 %b, %{name}.step.word")
            lines.append(f"%{name}.here = add i64 {value}, %{name}.moved")
            value = f"%{name}.here"
        if kind == "ptr":
            lines.append(f"%{name}.pointer = inttoptr i64 {value} to ptr")
            value = f"%{name}.pointer"
        arguments.append(f"{kind} {value}")
    function, block, columns, *rest = arguments
    passed = ", ".join(["i64 %count", "i64 %here", block, columns, "ptr %pointers", *rest])
    return [*lines, f"call void {function.removeprefix('ptr ')}({passed})"]
