"""LLVM IR that ranks the entries of a row whose magnitudes have bits below their bins: by sorting those."""

from __future__ import annotations

from .emit import loop
from .rank_bins import share

LOOPS = (
    "pick",
    "place",
    "wipe",
    "give",
    *(f"{n}.{s}" for n in ("low", "mid") for s in ("clear", "count", "sum", "move")),
)
"""The loops, each of which needs a slot."""


def _digit(name: str, source: str, target: str, shift: int) -> list[str]:
    """A stable pass of a radix sort of ``%listed`` pairs by 8 bits of their magnitudes."""

    def digit(loop: str) -> list[str]:
        return [
            f"%{loop}.pair.at = getelementptr i64, ptr {source}, i64 %{loop}",
            f"%{loop}.pair = load i64, ptr %{loop}.pair.at",
            f"%{loop}.shifted = lshr i64 %{loop}.pair, {32 + shift}",
            f"%{loop}.digit = and i64 %{loop}.shifted, 255",
            f"%{loop}.place = getelementptr i32, ptr %digits, i64 %{loop}.digit",
            f"%{loop}.seen = load i32, ptr %{loop}.place",
            f"%{loop}.more.seen = add i32 %{loop}.seen, 1",
            f"store i32 %{loop}.more.seen, ptr %{loop}.place",
        ]

    return [
        *loop(
            f"{name}.clear",
            "256",
            f"%{name}.zero = getelementptr i32, ptr %digits, i64 %{name}.clear",
            f"store i32 0, ptr %{name}.zero",
        ),
        *loop(f"{name}.count", "%listed", *digit(f"{name}.count")),
        "store i32 0, ptr %offset",
        *loop(
            f"{name}.sum",
            "256",
            f"%{name}.sum.place = getelementptr i32, ptr %digits, i64 %{name}.sum",
            f"%{name}.sum.count = load i32, ptr %{name}.sum.place",
            f"%{name}.sum.before = load i32, ptr %offset",
            f"store i32 %{name}.sum.before, ptr %{name}.sum.place",
            f"%{name}.sum.after = add i32 %{name}.sum.before, %{name}.sum.count",
            f"store i32 %{name}.sum.after, ptr %offset",
        ),
        *loop(
            f"{name}.move",
            "%listed",
            *digit(f"{name}.move"),
            f"%{name}.to.index = zext i32 %{name}.move.seen to i64",
            f"%{name}.to = getelementptr i64, ptr {target}, i64 %{name}.to.index",
            f"store i64 %{name}.move.pair, ptr %{name}.to",
        ),
    ]


def list_them(places: list[str]) -> list[str]:
    """Make ``%listed`` pairs of magnitude and place of the entries with lower bits, and count them by bin in lows.

    ``places`` finds where each entry stands.
    """
    return [
        "store i64 0, ptr %listed.at",
        "br i1 %simple, label %unlisted, label %listing",
        "listing:",
        *places,
        *loop(
            "pick",
            "%kept",
            "%pick.word.at = getelementptr i32, ptr %words, i64 %pick",
            "%pick.word = load i32, ptr %pick.word.at",
            "%pick.place.at = getelementptr i32, ptr %places, i64 %pick",
            "%pick.place = load i32, ptr %pick.place.at",
            "%pick.wide = zext i32 %pick.word to i64",
            "%pick.high = shl i64 %pick.wide, 32",
            "%pick.index = zext i32 %pick.place to i64",
            "%pick.made = or i64 %pick.high, %pick.index",
            "%pick.count = load i64, ptr %listed.at",
            "%pick.to = getelementptr i64, ptr %pairs, i64 %pick.count",
            "store i64 %pick.made, ptr %pick.to",
            f"%pick.below = and i32 %pick.word, {0x7FFF}",
            "%pick.low = icmp ne i32 %pick.below, 0",
            "%pick.one = zext i1 %pick.low to i64",
            "%pick.one32 = zext i1 %pick.low to i32",
            "%pick.after = add i64 %pick.count, %pick.one",
            "store i64 %pick.after, ptr %listed.at",
            "%pick.bin = lshr i64 %pick.wide, 15",
            "%pick.lows.at = getelementptr i32, ptr %lows, i64 %pick.bin",
            "%pick.lows = load i32, ptr %pick.lows.at",
            "%pick.lows.after = add i32 %pick.lows, %pick.one32",
            "store i32 %pick.lows.after, ptr %pick.lows.at",
        ),
        "br label %unlisted",
        "unlisted:",
        "%listed = load i64, ptr %listed.at",
    ]


def rank_listed() -> list[str]:
    """Give every listed entry its result: sorted by the lower 15 bits, then by bin, and gone through in runs.

    ``%lows`` says where a bin's entries begin in that order, ``%shifts`` how many others of the row are smaller.
    """
    return [
        "%listed.none = icmp eq i64 %listed, 0",
        "br i1 %listed.none, label %ranked.all, label %sort",
        "sort:",
        *_digit("low", "%pairs", "%others", 0),
        *_digit("mid", "%others", "%pairs", 8),
        *loop(
            "place",
            "%listed",
            "%place.pair.at = getelementptr i64, ptr %pairs, i64 %place",
            "%place.pair = load i64, ptr %place.pair.at",
            "%place.bin = lshr i64 %place.pair, 47",
            "%place.start.at = getelementptr i32, ptr %lows, i64 %place.bin",
            "%place.start = load i32, ptr %place.start.at",
            "%place.after = add i32 %place.start, 1",
            "store i32 %place.after, ptr %place.start.at",
            "%place.index = zext i32 %place.start to i64",
            "%place.to = getelementptr i64, ptr %others, i64 %place.index",
            "store i64 %place.pair, ptr %place.to",
        ),
        *loop(
            "wipe",
            "%listed",
            "%wipe.pair.at = getelementptr i64, ptr %others, i64 %wipe",
            "%wipe.pair = load i64, ptr %wipe.pair.at",
            "%wipe.bin = lshr i64 %wipe.pair, 47",
            "%wipe.lows.at = getelementptr i32, ptr %lows, i64 %wipe.bin",
            "store i32 0, ptr %wipe.lows.at",
        ),
        "store i64 0, ptr %before",
        "br label %run.head",
        "run.head:",
        "%run.start = load i64, ptr %before",
        "%run.more = icmp ult i64 %run.start, %listed",
        "br i1 %run.more, label %run.body, label %run.done",
        "run.body:",
        "%run.pair.at = getelementptr i64, ptr %others, i64 %run.start",
        "%run.pair = load i64, ptr %run.pair.at",
        "%run.word = lshr i64 %run.pair, 32",
        "%run.bin = lshr i64 %run.pair, 47",
        "%run.shift.at = getelementptr i32, ptr %shifts, i64 %run.bin",
        "%run.shift32 = load i32, ptr %run.shift.at",
        "%run.shift = zext i32 %run.shift32 to i64",
        "%run.smaller = add i64 %run.start, %run.shift",
        "%run.second = add i64 %run.start, 1",
        "store i64 %run.second, ptr %end",
        "br label %same.head",
        "same.head:",
        "%same = load i64, ptr %end",
        "%same.more = icmp ult i64 %same, %listed",
        "br i1 %same.more, label %same.look, label %same.done",
        "same.look:",
        "%same.pair.at = getelementptr i64, ptr %others, i64 %same",
        "%same.pair = load i64, ptr %same.pair.at",
        "%same.word = lshr i64 %same.pair, 32",
        "%same.equal = icmp eq i64 %same.word, %run.word",
        "br i1 %same.equal, label %same.next, label %same.done",
        "same.next:",
        "%same.after = add i64 %same, 1",
        "store i64 %same.after, ptr %end",
        "br label %same.head",
        "same.done:",
        "%run.end = load i64, ptr %end",
        "%run.length = sub i64 %run.end, %run.start",
        *share("run.p", "%run.smaller", "%run.length"),
        *loop(
            "give",
            "%run.end",
            "%give.pair.at = getelementptr i64, ptr %others, i64 %give",
            "%give.pair = load i64, ptr %give.pair.at",
            f"%give.index = and i64 %give.pair, {0xFFFFFFFF}",
            "%give.to = getelementptr float, ptr %out, i64 %give.index",
            "store float %run.p.result, ptr %give.to",
            start="%run.start",
        ),
        "store i64 %run.end, ptr %before",
        "br label %run.head",
        "run.done:",
        "br label %ranked.all",
        "ranked.all:",
    ]
