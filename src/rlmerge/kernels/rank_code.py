"""LLVM IR of the walk over rows that ``ranks`` compiles: count, then look up, or sort where bins hold several words."""

from __future__ import annotations

LANES = 16
BINS = 1 << 16

WORDS = BINS // 64
"""Words of 64 bits that say which bins hold something."""

GROUPS = WORDS // 64
"""Words that say which of those words are not 0; a short row fills a few bins, and most words are."""

FIRST_GROUP = WORDS + 1
"""Where these begin. Between and behind them is a word for the bins that count zeros, which nobody reads."""

ZERO_BINS = 16
"""Bins behind the others that count zeros in turn: one bin would make every count wait for the one before."""

COUNTS, BITS = BINS + ZERO_BINS, FIRST_GROUP + GROUPS + 1


def _loop(name: str, end: str, *body: str, start: str = "0", step: int = 1) -> list[str]:
    """``body`` for ``%name`` from ``start`` up to ``end``; the body may hold loops of other names."""
    return [
        f"store i64 {start}, ptr %{name}.at",
        f"br label %{name}.head",
        f"{name}.head:",
        f"%{name} = load i64, ptr %{name}.at",
        f"%{name}.more = icmp ult i64 %{name}, {end}",
        f"br i1 %{name}.more, label %{name}.body, label %{name}.done",
        f"{name}.body:",
        *body,
        f"%{name}.next = add i64 %{name}, {step}",
        f"store i64 %{name}.next, ptr %{name}.at",
        f"br label %{name}.head",
        f"{name}.done:",
    ]


def _bins(name: str, *body: str, last: bool = False) -> list[str]:
    """``body`` for every bin ``%name.bin`` that holds something, in rising order; the ``last`` walk clears the bits."""
    return _loop(
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
        f"%{name}.count.at = getelementptr i32, ptr %counts, i64 %{name}.bin",
        f"%{name}.count = load i32, ptr %{name}.count.at",
        *body,
        f"br label %{name}.bit",
        f"{name}.gone:",
        *([f"store i64 0, ptr %{name}.place"] if last else []),
        f"br label %{name}.word",
        f"{name}.over:",
        *([f"store i64 0, ptr %{name}.group.at"] if last else []),
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


def _mark(name: str, word: str, bit: str) -> list[str]:
    """Set bit ``bit`` (i64, of which 6 bits count) of word ``word`` of the bits."""
    return [
        f"%{name}.shift = and i64 {bit}, 63",
        f"%{name}.flag = shl i64 1, %{name}.shift",
        f"%{name}.bits = getelementptr i64, ptr %bits, i64 {word}",
        f"%{name}.old = load i64, ptr %{name}.bits",
        f"%{name}.set = or i64 %{name}.old, %{name}.flag",
        f"store i64 %{name}.set, ptr %{name}.bits",
    ]


def _word(name: str) -> list[str]:
    """``%name.word``: the magnitude at ``%name`` of the row."""
    return [
        f"%{name}.from = getelementptr i32, ptr %row.values, i64 %{name}",
        f"%{name}.signed = load i32, ptr %{name}.from",
        f"%{name}.word = and i32 %{name}.signed, {0x7FFFFFFF}",
    ]


def _share(name: str, before: str, equal: str) -> list[str]:
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


def _digit(name: str, source: str, target: str, shift: int) -> list[str]:
    """A stable pass of a radix sort of ``%kept`` pairs by 8 bits of their magnitudes."""

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
        *_loop(
            f"{name}.clear",
            "256",
            f"%{name}.zero = getelementptr i32, ptr %digits, i64 %{name}.clear",
            f"store i32 0, ptr %{name}.zero",
        ),
        *_loop(f"{name}.count", "%kept", *digit(f"{name}.count")),
        "store i32 0, ptr %offset",
        *_loop(
            f"{name}.sum",
            "256",
            f"%{name}.sum.place = getelementptr i32, ptr %digits, i64 %{name}.sum",
            f"%{name}.sum.count = load i32, ptr %{name}.sum.place",
            f"%{name}.sum.before = load i32, ptr %offset",
            f"store i32 %{name}.sum.before, ptr %{name}.sum.place",
            f"%{name}.sum.after = add i32 %{name}.sum.before, %{name}.sum.count",
            f"store i32 %{name}.sum.after, ptr %offset",
        ),
        *_loop(
            f"{name}.move",
            "%kept",
            *digit(f"{name}.move"),
            f"%{name}.to.index = zext i32 %{name}.move.seen to i64",
            f"%{name}.to = getelementptr i64, ptr {target}, i64 %{name}.to.index",
            f"store i64 %{name}.move.pair, ptr %{name}.to",
        ),
    ]


def _counted_row() -> list[str]:
    """A row whose bins hold one magnitude each: results by bin, then a look-up for every entry."""
    return [
        "store i64 0, ptr %before",
        *_bins(
            "each",
            "%each.empty = icmp eq i64 %each.bin, 0",
            "%each.skipped = and i1 %each.empty, %unranked",
            "%each.wide = zext i32 %each.count to i64",
            "%each.start = load i64, ptr %before",
            *_share("each.p", "%each.start", "%each.wide"),
            "%each.value = select i1 %each.skipped, float %plain, float %each.p.result",
            "%each.to = getelementptr float, ptr %results, i64 %each.bin",
            "store float %each.value, ptr %each.to",
            "%each.length = select i1 %each.skipped, i64 0, i64 %each.wide",
            "%each.after = add i64 %each.start, %each.length",
            "store i64 %each.after, ptr %before",
            "store i32 0, ptr %each.count.at",
            last=True,
        ),
        *_loop(
            "look",
            "%columns",
            *_word("look"),
            "%look.bin32 = lshr i32 %look.word, 15",
            "%look.bin = zext i32 %look.bin32 to i64",
            "%look.result.at = getelementptr float, ptr %results, i64 %look.bin",
            "%look.result = load float, ptr %look.result.at",
            "%look.to = getelementptr float, ptr %row.out, i64 %look",
            "store float %look.result, ptr %look.to",
        ),
    ]


def _sorted_row() -> list[str]:
    """A row whose bins hold several magnitudes: sorted by the lower 15 bits, then by bin, and gone through in runs."""
    return [
        "store i64 0, ptr %before",
        *_loop(
            "pick",
            "%columns",
            *_word("pick"),
            "%pick.zero = icmp eq i32 %pick.word, 0",
            "%pick.skipped = and i1 %pick.zero, %unranked",
            "br i1 %pick.skipped, label %pick.plain, label %pick.pair",
            "pick.plain:",
            "%pick.plain.to = getelementptr float, ptr %row.out, i64 %pick",
            "store float %plain, ptr %pick.plain.to",
            "br label %pick.end",
            "pick.pair:",
            "%pick.wide = zext i32 %pick.word to i64",
            "%pick.high = shl i64 %pick.wide, 32",
            "%pick.made = or i64 %pick.high, %pick",
            "%pick.count = load i64, ptr %before",
            "%pick.to = getelementptr i64, ptr %pairs, i64 %pick.count",
            "store i64 %pick.made, ptr %pick.to",
            "%pick.after = add i64 %pick.count, 1",
            "store i64 %pick.after, ptr %before",
            "br label %pick.end",
            "pick.end:",
        ),
        "%kept = load i64, ptr %before",
        *_digit("low", "%pairs", "%others", 0),
        *_digit("mid", "%others", "%pairs", 8),
        "store i32 0, ptr %offset",
        *_bins(
            "place",
            "%place.empty = icmp eq i64 %place.bin, 0",
            "%place.some = and i1 %place.empty, %unranked",
            "%place.zeros = select i1 %place.some, i64 %zeros, i64 0",
            "%place.zeros32 = trunc i64 %place.zeros to i32",
            "%place.length = sub i32 %place.count, %place.zeros32",
            "%place.start = load i32, ptr %offset",
            "store i32 %place.start, ptr %place.count.at",
            "%place.end = add i32 %place.start, %place.length",
            "store i32 %place.end, ptr %offset",
        ),
        *_loop(
            "put",
            "%kept",
            "%put.pair.at = getelementptr i64, ptr %pairs, i64 %put",
            "%put.pair = load i64, ptr %put.pair.at",
            "%put.bin = lshr i64 %put.pair, 47",
            "%put.count.at = getelementptr i32, ptr %counts, i64 %put.bin",
            "%put.place = load i32, ptr %put.count.at",
            "%put.after = add i32 %put.place, 1",
            "store i32 %put.after, ptr %put.count.at",
            "%put.index = zext i32 %put.place to i64",
            "%put.to = getelementptr i64, ptr %others, i64 %put.index",
            "store i64 %put.pair, ptr %put.to",
        ),
        *_bins("wipe", "store i32 0, ptr %wipe.count.at", last=True),
        "store i64 0, ptr %before",
        "br label %run.head",
        "run.head:",
        "%run.start = load i64, ptr %before",
        "%run.more = icmp ult i64 %run.start, %kept",
        "br i1 %run.more, label %run.body, label %run.done",
        "run.body:",
        "%run.pair.at = getelementptr i64, ptr %others, i64 %run.start",
        "%run.pair = load i64, ptr %run.pair.at",
        "%run.word = lshr i64 %run.pair, 32",
        "%run.second = add i64 %run.start, 1",
        "store i64 %run.second, ptr %end",
        "br label %same.head",
        "same.head:",
        "%same = load i64, ptr %end",
        "%same.more = icmp ult i64 %same, %kept",
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
        *_share("run.p", "%run.start", "%run.length"),
        *_loop(
            "give",
            "%run.end",
            "%give.pair.at = getelementptr i64, ptr %others, i64 %give",
            "%give.pair = load i64, ptr %give.pair.at",
            f"%give.index = and i64 %give.pair, {0xFFFFFFFF}",
            "%give.to = getelementptr float, ptr %row.out, i64 %give.index",
            "store float %run.p.result, ptr %give.to",
            start="%run.start",
        ),
        "store i64 %run.end, ptr %before",
        "br label %run.head",
        "run.done:",
    ]


def _summary(name: str, width: int, end: str, start: str) -> list[str]:
    """Zeros, lower bits and the largest magnitude of the entries from ``start`` to ``end``, ``width`` at a time."""
    words = f"<{width} x i32>"
    mask = "<" + ", ".join([f"i32 {0x7FFFFFFF}"] * width) + ">"
    return [
        *_loop(
            name,
            end,
            f"%{name}.from = getelementptr i32, ptr %row.values, i64 %{name}",
            f"%{name}.signed = load {words}, ptr %{name}.from, align 4",
            f"%{name}.word = and {words} %{name}.signed, {mask}",
            f"%{name}.low = load {words}, ptr %low.{width}",
            f"%{name}.lower = or {words} %{name}.low, %{name}.word",
            f"store {words} %{name}.lower, ptr %low.{width}",
            f"%{name}.top = load {words}, ptr %top.{width}",
            f"%{name}.above = icmp ugt {words} %{name}.word, %{name}.top",
            f"%{name}.higher = select <{width} x i1> %{name}.above, {words} %{name}.word, {words} %{name}.top",
            f"store {words} %{name}.higher, ptr %top.{width}",
            f"%{name}.zero = icmp eq {words} %{name}.word, zeroinitializer",
            f"%{name}.flags = bitcast <{width} x i1> %{name}.zero to i{width}",
            f"%{name}.wide = zext i{width} %{name}.flags to i64",
            f"%{name}.ones = call i64 @llvm.ctpop.i64(i64 %{name}.wide)",
            f"%{name}.zeros = load i64, ptr %zeros.at",
            f"%{name}.more.zeros = add i64 %{name}.zeros, %{name}.ones",
            f"store i64 %{name}.more.zeros, ptr %zeros.at",
            start=start,
            step=width,
        ),
        f"%{name}.lows = load {words}, ptr %low.{width}",
        f"%{name}.or = call i32 @llvm.vector.reduce.or.v{width}i32({words} %{name}.lows)",
        f"%{name}.tops = load {words}, ptr %top.{width}",
        f"%{name}.max = call i32 @llvm.vector.reduce.umax.v{width}i32({words} %{name}.tops)",
    ]


def _count_row() -> list[str]:
    """Counts and bits of the bins of a row, its zeros, the bits below the bins, and whether there is NaN."""
    return [
        "store i64 0, ptr %zeros.at",
        *(f"store <{w} x i32> zeroinitializer, ptr %{name}.{w}" for w in (LANES, 1) for name in ("low", "top")),
        f"%whole = and i64 %columns, {-LANES}",
        *_summary("wide", LANES, "%whole", "0"),
        *_summary("rest", 1, "%columns", "%whole"),
        "%low = or i32 %wide.or, %rest.or",
        "%rest.larger = icmp ugt i32 %rest.max, %wide.max",
        "%top = select i1 %rest.larger, i32 %rest.max, i32 %wide.max",
        f"%nan = icmp ugt i32 %top, {0x7F800000}",
        "%odd.before = load i1, ptr %odd.at",
        "%odd.after = or i1 %odd.before, %nan",
        "store i1 %odd.after, ptr %odd.at",
        *_loop(
            "scan",
            "%columns",
            *_word("scan"),
            "%scan.bin32 = lshr i32 %scan.word, 15",
            "%scan.bin = zext i32 %scan.bin32 to i64",
            "%scan.zero = icmp eq i32 %scan.word, 0",
            f"%scan.turn = and i64 %scan, {ZERO_BINS - 1}",
            f"%scan.aside = or i64 %scan.turn, {BINS}",
            "%scan.index = select i1 %scan.zero, i64 %scan.aside, i64 %scan.bin",
            "%scan.place = getelementptr i32, ptr %counts, i64 %scan.index",
            "%scan.seen = load i32, ptr %scan.place",
            "%scan.after = add i32 %scan.seen, 1",
            "store i32 %scan.after, ptr %scan.place",
            "%scan.new = icmp eq i32 %scan.seen, 0",
            "br i1 %scan.new, label %scan.mark, label %scan.end",
            "scan.mark:",
            "%scan.word64 = lshr i64 %scan.index, 6",
            *_mark("scan.low", "%scan.word64", "%scan.index"),
            "%scan.group = lshr i64 %scan.word64, 6",
            f"%scan.group.index = add i64 %scan.group, {FIRST_GROUP}",
            *_mark("scan.high", "%scan.group.index", "%scan.word64"),
            "br label %scan.end",
            "scan.end:",
        ),
        # Zeros share the lowest bin with the smallest subnormals.
        "%zeros.counted = load i64, ptr %zeros.at",
        "%zeros.any = icmp ne i64 %zeros.counted, 0",
        "br i1 %zeros.any, label %zeros.some, label %zeros.none",
        "zeros.some:",
        "%zeros.32 = trunc i64 %zeros.counted to i32",
        "%zeros.before = load i32, ptr %counts",
        "%zeros.with = add i32 %zeros.before, %zeros.32",
        "store i32 %zeros.with, ptr %counts",
        *_mark("zeros.low", "0", "0"),
        *_mark("zeros.high", str(FIRST_GROUP), "0"),
        "br label %zeros.none",
        "zeros.none:",
        "%zeros = load i64, ptr %zeros.at",
        f"%below = and i32 %low, {0x7FFF}",
        "%skipped = select i1 %unranked, i64 %zeros, i64 0",
        "%ranked = sub i64 %columns, %skipped",
        "%several = icmp ugt i64 %ranked, 1",
        "%last = sub i64 %ranked, 1",
        "%last.safe = select i1 %several, i64 %last, i64 1",
        "%last.divisor = uitofp i64 %last.safe to double",
        "%simple = icmp eq i32 %below, 0",
    ]


def module() -> str:
    """LLVM IR of ``@kernel``; it returns 1 when a row held NaN, whose result is then void."""
    loops = ("row", "wide", "rest", "scan", "each", "look", "pick", "place", "put", "wipe", "give")
    passes = [f"{name}.{step}" for name in ("low", "mid") for step in ("clear", "count", "sum", "move")]
    words = [
        *(f"{name}.at" for name in (*loops, *passes)),
        *(f"{name}.{of}" for name in ("each", "place", "wipe") for of in ("words", "left")),
    ]
    return "\n".join(
        [
            "declare i64 @llvm.cttz.i64(i64, i1)",
            "declare i64 @llvm.ctpop.i64(i64)",
            *(
                f"declare i32 @llvm.vector.reduce.{name}.v{width}i32(<{width} x i32>)"
                for name in ("or", "umax")
                for width in (LANES, 1)
            ),
            "define i64 @kernel(i64 %rows, i64 %columns, ptr %values, double %middle, double %half, i64 %ranked.zeros, "
            "ptr %out, ptr %pairs, ptr %counts, ptr %results, ptr %bits, ptr %digits) {",
            *(f"%{name} = alloca i64" for name in (*words, "before", "end", "zeros.at")),
            *(f"%{name}.{width} = alloca <{width} x i32>" for width in (LANES, 1) for name in ("low", "top")),
            "%offset = alloca i32",
            "%odd.at = alloca i1",
            "store i1 false, ptr %odd.at",
            "%others = getelementptr i64, ptr %pairs, i64 %columns",
            "%plain = fptrunc double %middle to float",
            "%unranked = icmp eq i64 %ranked.zeros, 0",
            *_loop(
                "row",
                "%rows",
                "%row.first = mul i64 %row, %columns",
                "%row.values = getelementptr i32, ptr %values, i64 %row.first",
                "%row.out = getelementptr float, ptr %out, i64 %row.first",
                *_count_row(),
                "br i1 %simple, label %counted, label %sorted",
                "counted:",
                *_counted_row(),
                "br label %row.end",
                "sorted:",
                *_sorted_row(),
                "br label %row.end",
                "row.end:",
            ),
            "%odd = load i1, ptr %odd.at",
            "%result = zext i1 %odd to i64",
            "ret i64 %result",
            "}",
        ]
    )
