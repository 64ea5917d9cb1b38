"""LLVM IR for the bins that magnitudes are counted in, and for the numbers that ranks become."""

from __future__ import annotations

from .emit import loop

BINS = 1 << 16

WORDS = BINS // 64
"""Words of 64 bits that say which bins hold something."""

GROUPS = WORDS // 64
"""Words that say which of those words are not 0; a short row fills a few bins, and most words are."""

FIRST_GROUP = WORDS
"""Where these begin."""

TURNS = 4
"""Counters of a bin, used in turn: many magnitudes are equal, and one counter would make each count wait for the one
before."""

COUNTS, BITS = BINS * TURNS, FIRST_GROUP + GROUPS


def bins(name: str, *body: str) -> list[str]:
    """``body`` for every bin ``%name.bin`` that holds ``%name.count`` entries, in rising order; the bits and counts are
    cleared."""
    counters = f"<{TURNS} x i32>"
    return loop(
        name,
        str(GROUPS),
        f"%{name}.group.index = add i64 %{name}, {FIRST_GROUP}",
        f"%{name}.group.at = getelementptr i64, ptr %bits, i64 %{name}.group.index",
        f"%{name}.group = load i64, ptr %{name}.group.at",
        f"store i64 %{name}.group, ptr %{name}.words",
        f"br label %{name}.word",
        *_next_bit(f"{name}.word", f"{name}.words", f"{name}.inner", f"{name}.over"),
        f"%{name}.word.first = shl i64 %{name}, 6",
        f"%{name}.word.index = or i64 %{name}.word.first, %{name}.word.low",
        f"%{name}.place = getelementptr i64, ptr %bits, i64 %{name}.word.index",
        f"%{name}.flags = load i64, ptr %{name}.place",
        f"store i64 %{name}.flags, ptr %{name}.left",
        f"br label %{name}.bit",
        *_next_bit(f"{name}.bit", f"{name}.left", f"{name}.one", f"{name}.gone"),
        f"%{name}.first = shl i64 %{name}.word.index, 6",
        f"%{name}.bin = or i64 %{name}.first, %{name}.bit.low",
        f"%{name}.counters = mul i64 %{name}.bin, {TURNS}",
        f"%{name}.count.at = getelementptr i32, ptr %counts, i64 %{name}.counters",
        f"%{name}.turns = load {counters}, ptr %{name}.count.at, align 4",
        f"%{name}.count32 = call i32 @llvm.vector.reduce.add.v{TURNS}i32({counters} %{name}.turns)",
        f"%{name}.count = zext i32 %{name}.count32 to i64",
        f"store {counters} zeroinitializer, ptr %{name}.count.at, align 4",
        *body,
        f"br label %{name}.bit",
        f"{name}.gone:",
        f"store i64 0, ptr %{name}.place",
        f"br label %{name}.word",
        f"{name}.over:",
        f"store i64 0, ptr %{name}.group.at",
    )


def _next_bit(label: str, left: str, found: str, none: str) -> list[str]:
    """Take the lowest bit ``%label.low`` out of the word in ``left`` and go on at ``found``, or at ``none``."""
    return [
        f"{label}:",
        f"%{label}.now = load i64, ptr %{left}",
        f"%{label}.none = icmp eq i64 %{label}.now, 0",
        f"br i1 %{label}.none, label %{none}, label %{found}",
        f"{found}:",
        f"%{label}.low = call i64 @llvm.cttz.i64(i64 %{label}.now, i1 true)",
        f"%{label}.minus = sub i64 %{label}.now, 1",
        f"%{label}.rest = and i64 %{label}.now, %{label}.minus",
        f"store i64 %{label}.rest, ptr %{left}",
    ]


def mark(name: str, word: str, bit: str) -> list[str]:
    """Set bit ``bit`` (i64, of which 6 bits count) of word ``word`` of the bits."""
    return [
        f"%{name}.shift = and i64 {bit}, 63",
        f"%{name}.flag = shl i64 1, %{name}.shift",
        f"%{name}.bits = getelementptr i64, ptr %bits, i64 {word}",
        f"%{name}.old = load i64, ptr %{name}.bits",
        f"%{name}.set = or i64 %{name}.old, %{name}.flag",
        f"store i64 %{name}.set, ptr %{name}.bits",
    ]


def share(name: str, before: str, equal: str) -> list[str]:
    """``%name.result``: middle + half·(2r − 1) for ``equal`` entries with ``before`` smaller ones (i64)."""
    return [
        f"%{name}.before = uitofp i64 {before} to double",
        f"%{name}.others = sub i64 {equal}, 1",
        f"%{name}.equal = uitofp i64 %{name}.others to double",
        f"%{name}.middle = fdiv double %{name}.equal, 2.0",
        f"%{name}.rank = fadd double %{name}.before, %{name}.middle",
        f"%{name}.quotient = fdiv double %{name}.rank, %last.divisor",
        f"%{name}.share = select i1 %several, double %{name}.quotient, double 0.5",
        f"%{name}.twice = fmul double %{name}.share, 2.0",
        f"%{name}.signed = fsub double %{name}.twice, 1.0",
        f"%{name}.step = fmul double %half, %{name}.signed",
        f"%{name}.wide = fadd double %middle, %{name}.step",
        f"%{name}.result = fptrunc double %{name}.wide to float",
    ]
