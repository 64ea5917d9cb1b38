"""The part of a kernel that counts words by their leading bits.

Words that count are few among many, at random places: each vector puts them side by side in a buffer, and a loop of its
own counts the buffer whenever it is full. Where the processor can do that without a branch, neither waits for one that
nobody can foresee.
"""

from __future__ import annotations

from collections.abc import Sequence

from . import pack
from .emit import Emitter

HELD = 1024
"""Words of a value that are held before they are counted."""

BIN_BITS = 16
BINS = 1 << BIN_BITS


def hold(e: Emitter, values: Sequence[str], packs: int) -> None:
    """Hold those of the words of each value that lie in its window; ``packs`` as for ``Host``."""
    word, kind = e.word, e.vector(e.word)
    tag = e.prefix
    for index, words in enumerate(values):
        offset = e.let(f"sub {kind} {words}, {e.splat(word, f'%low{index}')}")
        mask = e.let(f"icmp ult {kind} {offset}, {e.splat(word, f'%extent{index}')}")
        if e.width == 1:
            _append_one(e, index, words, mask)
        elif pack.piece(packs, word):
            flags = e.let(f"bitcast {e.mask} {mask} to i{e.width}")
            pack.append(e, words, flags, packs, f"%held{index}", f"%held{index}.count")
        else:
            _append_each(e, index, words, mask, f"h{index}{tag}")
    # One branch for all, where no vector is alive: a call would have each of them stored and loaded.
    most = e.let("load i64, ptr %held0.count")
    for index in range(1, len(values)):
        held = e.let(f"load i64, ptr %held{index}.count")
        most = e.let(f"call i64 @llvm.umax.i64(i64 {most}, i64 {held})")
    e.do(f"br i1 {e.let(f'icmp uge i64 {most}, {HELD}')}, label %{tag}.full, label %{tag}.counted")
    e.do(f"{tag}.full:")
    for index in range(len(values)):
        count_held(e, index)
    e.do(f"br label %{tag}.counted")
    e.do(f"{tag}.counted:")


def _append_one(e: Emitter, index: int, word: str, mask: str) -> None:
    """Hold a vector of one word, where the mask is set."""
    held = e.let(f"load i64, ptr %held{index}.count")
    place = e.let(f"getelementptr inbounds {e.word}, ptr %held{index}, i64 {held}")
    e.do(f"store <1 x {e.word}> {word}, ptr {place}, align 4")
    one = e.let(f"zext i1 {e.let(f'bitcast {e.mask} {mask} to i1')} to i64")
    e.do(f"store i64 {e.let(f'add i64 {held}, {one}')}, ptr %held{index}.count")


def _append_each(e: Emitter, index: int, words: str, mask: str, label: str) -> None:
    """Hold the words in the lanes of ``mask``, one after the other."""
    word = e.word
    e.do(f"store {e.vector(word)} {words}, ptr %scratch")
    lanes = e.let(f"bitcast {e.mask} {mask} to i{e.width}")
    e.do(f"store i64 {e.let(f'zext i{e.width} {lanes} to i64')}, ptr %pending")
    e.do(f"br label %{label}.head")
    e.do(f"{label}.head:")
    left = e.let("load i64, ptr %pending")
    e.do(f"br i1 {e.let(f'icmp eq i64 {left}, 0')}, label %{label}.over, label %{label}.body")
    e.do(f"{label}.body:")
    lane = e.let(f"call i64 @llvm.cttz.i64(i64 {left}, i1 true)")
    lower = e.let(f"sub i64 {left}, 1")
    e.do(f"store i64 {e.let(f'and i64 {left}, {lower}')}, ptr %pending")
    one = e.let(f"load {word}, ptr {e.let(f'getelementptr inbounds {word}, ptr %scratch, i64 {lane}')}")
    held = e.let(f"load i64, ptr %held{index}.count")
    e.do(f"store {word} {one}, ptr {e.let(f'getelementptr inbounds {word}, ptr %held{index}, i64 {held}')}")
    e.do(f"store i64 {e.let(f'add i64 {held}, 1')}, ptr %held{index}.count")
    e.do(f"br label %{label}.head")
    e.do(f"{label}.over:")


def count_held(e: Emitter, index: int) -> None:
    """Count what is held of a value, and hold nothing."""
    word = e.word
    number = e.let(f"load i64, ptr %held{index}.count")
    histogram = e.let(f"getelementptr inbounds i64, ptr %histograms, i64 {index * BINS}")
    side = e.let(f"getelementptr inbounds {word}, ptr %side, i64 {e.let(f'mul i64 %side_capacity, {index}')}")
    used = e.let(f"getelementptr inbounds i64, ptr %side_counts, i64 {index}")
    e.do(
        f"call void @count(ptr %held{index}, i64 {number}, ptr {histogram}, ptr {side}, ptr {used}, "
        f"i64 %side_capacity, {word} %shift, {word} %bin_mask, {word} %low_mask)"
    )
    e.do(f"store i64 0, ptr %held{index}.count")


def held_words(values: int, width: int) -> int:
    """Words of the buffers: what is held, and a vector beyond it."""
    return values * (HELD + width)


def entry(values: int, width: int, word: str) -> list[str]:
    """The buffers of a kernel's values, and room to take a vector apart."""
    lines = ["%pending = alloca i64", f"%scratch = alloca <{width} x {word}>"]
    for index in range(values):
        lines.append(f"%held{index} = getelementptr inbounds {word}, ptr %held, i64 {index * (HELD + width)}")
        lines.append(f"%held{index}.count = alloca i64")
        lines.append(f"store i64 0, ptr %held{index}.count")
    return lines


def function(word: str, packs: int) -> str:
    """``@count``: words by their leading bits; those with lower bits set also go to a side list while it has room.
    Beside it, what ``hold`` calls, with ``packs`` as for ``Host``.
    """
    wide = "%shifted.bin" if word == "i64" else "%bin"
    return f"""
declare i64 @llvm.cttz.i64(i64, i1)
declare i64 @llvm.umax.i64(i64, i64)
{pack.declarations(packs, word)}
define internal void @count(ptr %words, i64 %number, ptr %histogram, ptr %side, ptr %used, i64 %capacity,
    {word} %shift, {word} %bin_mask, {word} %low_mask) noinline {{
entry:
  br label %head
head:
  %i = phi i64 [0, %entry], [%following, %next]
  %more = icmp ult i64 %i, %number
  br i1 %more, label %body, label %done
body:
  %from = getelementptr inbounds {word}, ptr %words, i64 %i
  %word = load {word}, ptr %from
  %shifted = lshr {word} %word, %shift
  %shifted.bin = and {word} %shifted, %bin_mask
  {"" if word == "i64" else f"%bin = zext {word} %shifted.bin to i64"}
  %counter = getelementptr inbounds i64, ptr %histogram, i64 {wide}
  %seen = load i64, ptr %counter
  %again = add i64 %seen, 1
  store i64 %again, ptr %counter
  %low = and {word} %word, %low_mask
  %plain = icmp eq {word} %low, 0
  br i1 %plain, label %next, label %listed
listed:
  %length = load i64, ptr %used
  %longer = add i64 %length, 1
  store i64 %longer, ptr %used
  %fits = icmp ult i64 %length, %capacity
  br i1 %fits, label %keep, label %next
keep:
  %to = getelementptr inbounds {word}, ptr %side, i64 %length
  store {word} %word, ptr %to
  br label %next
next:
  %following = add i64 %i, 1
  br label %head
done:
  ret void
}}
"""
