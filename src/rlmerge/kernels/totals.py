"""What a kernel has added up, at the end of a block and of its run: lanes become numbers that others read."""

from __future__ import annotations

from . import histogram
from .emit import LANES, Emitter
from .sinks import MASK_BITS, Reduce, Slots, Write, count_masks


def zero_sums(slots: Slots, scalar: str) -> list[str]:
    """Begin the sums of a block."""
    return [
        f"store <{width} x {scalar}> zeroinitializer, ptr %sum{i}{suffix}"
        for i in range(slots.sums)
        for width, suffix in ((LANES, ""), (1, ".t"))
    ]


def count_kept(sink: Write | Reduce, slots: Slots) -> list[str]:
    """Count the masks that a block has kept, 64 bits at a time; ``slots`` get the counters."""
    if not slots.masks:
        return []
    pad, e = Emitter(1, "double", "p"), Emitter(1, "double", "m")
    for i in range(slots.masks):
        place = pad.let(f"getelementptr inbounds i{MASK_BITS}, ptr %mask{i}, i64 %words")
        pad.do(f"store i64 0, ptr {place}, align 2")
    at = [e.let(f"getelementptr inbounds i{MASK_BITS}, ptr %mask{i}, i64 %group") for i in range(slots.masks)]
    slots.counts = count_masks(e, sink, [e.let(f"load i64, ptr {place}, align 2") for place in at])
    return [
        "%words = load i64, ptr %word.at",
        *pad.lines,
        "store i64 0, ptr %group.at",
        "br label %group.head",
        "group.head:",
        "%group = load i64, ptr %group.at",
        "%gmore = icmp slt i64 %group, %words",
        "br i1 %gmore, label %group.body, label %group.done",
        "group.body:",
        *e.lines,
        f"%gnext = add i64 %group, {64 // MASK_BITS}",
        "store i64 %gnext, ptr %group.at",
        "br label %group.head",
        "group.done:",
    ]


def count_rest(real: str, values: int) -> list[str]:
    """Count what is still held of every value."""
    e = Emitter(LANES, real, "g")
    for index in range(values):
        histogram.count_held(e, index)
    return e.lines


def write_sums(slots: Slots, lane: str) -> list[str]:
    """Write the block's sums, lane after lane and the remainder last; add its counts to the totals."""
    e = Emitter(LANES, "double", "f")
    row = e.let(f"mul i64 %b, {slots.sums}")
    for i in range(slots.sums):
        total = _add_lanes(e, f"%sum{i}", lane, "fadd")
        if lane != "double":
            total = e.let(f"fpext {lane} {total} to double")
        place = e.let(f"getelementptr inbounds double, ptr %sums, i64 {e.let(f'add i64 {row}, {i}')}")
        e.do(f"store double {total}, ptr {place}")
    return e.lines


def write_counts(slots: Slots) -> list[str]:
    """Write the counts of all vectors and remainders."""
    e = Emitter(LANES, "double", "c")
    for i in range(slots.counts):
        total = e.let(f"add i64 {e.let(f'load i64, ptr %count{i}')}, {e.let(f'load i64, ptr %count{i}.t')}")
        e.do(f"store i64 {total}, ptr {e.let(f'getelementptr inbounds i64, ptr %counts, i64 {i}')}")
    return e.lines


def _add_lanes(e: Emitter, slot: str, scalar: str, add: str) -> str:
    """The lanes of a slot and its remainder, added up in their order."""
    lanes = e.let(f"load {e.vector(scalar)}, ptr {slot}")
    total = e.let(f"extractelement {e.vector(scalar)} {lanes}, i64 0")
    for k in range(1, LANES):
        total = e.let(f"{add} {scalar} {total}, {e.let(f'extractelement {e.vector(scalar)} {lanes}, i64 {k}')}")
    rest = e.let(f"load <1 x {scalar}>, ptr {slot}.t")
    return e.let(f"{add} {scalar} {total}, {e.let(f'extractelement <1 x {scalar}> {rest}, i64 0')}")


def write_largest(real: str) -> list[str]:
    """Write the largest magnitudes of inputs and output."""
    e = Emitter(LANES, real, "x")
    word = e.word
    for index, which in enumerate(("in", "out")):
        lanes = e.let(f"load {e.vector(word)}, ptr %largest.{which}")
        rest = e.let(f"load <1 x {word}>, ptr %largest.{which}.t")
        largest = e.let(f"extractelement <1 x {word}> {rest}, i64 0")
        for k in range(LANES):
            lane = e.let(f"extractelement {e.vector(word)} {lanes}, i64 {k}")
            more = e.let(f"icmp ugt {word} {lane}, {largest}")
            largest = e.let(f"select i1 {more}, {word} {lane}, {word} {largest}")
        wide = largest if word == "i64" else e.let(f"zext i32 {largest} to i64")
        place = e.let(f"getelementptr inbounds i64, ptr %largest, i64 {index}")
        e.do(f"store i64 {wide}, ptr {place}")
    return e.lines
