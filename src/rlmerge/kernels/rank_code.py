"""LLVM IR of the walk over rows that ``ranks`` compiles: count, then look up, or sort where bins hold several words."""

from __future__ import annotations

from .emit import loop
from .rank_bins import BINS, FIRST_GROUP, ZERO_BINS, bins, mark, share, word
from .rank_sort import sorted_row

LANES = 16


def _counted_row() -> list[str]:
    """A row whose bins hold one magnitude each: results by bin, then a look-up for every entry."""
    return [
        "store i64 0, ptr %before",
        *bins(
            "each",
            "%each.empty = icmp eq i64 %each.bin, 0",
            "%each.skipped = and i1 %each.empty, %unranked",
            "%each.wide = zext i32 %each.count to i64",
            "%each.start = load i64, ptr %before",
            *share("each.p", "%each.start", "%each.wide"),
            "%each.value = select i1 %each.skipped, float %plain, float %each.p.result",
            "%each.to = getelementptr float, ptr %results, i64 %each.bin",
            "store float %each.value, ptr %each.to",
            "%each.length = select i1 %each.skipped, i64 0, i64 %each.wide",
            "%each.after = add i64 %each.start, %each.length",
            "store i64 %each.after, ptr %before",
            "store i32 0, ptr %each.count.at",
            last=True,
        ),
        *loop(
            "look",
            "%columns",
            *word("look"),
            "%look.bin32 = lshr i32 %look.word, 15",
            "%look.bin = zext i32 %look.bin32 to i64",
            "%look.result.at = getelementptr float, ptr %results, i64 %look.bin",
            "%look.result = load float, ptr %look.result.at",
            "%look.to = getelementptr float, ptr %row.out, i64 %look",
            "store float %look.result, ptr %look.to",
        ),
    ]


def _summary(name: str, width: int, end: str, start: str) -> list[str]:
    """Zeros, lower bits and the largest magnitude of the entries from ``start`` to ``end``, ``width`` at a time."""
    words = f"<{width} x i32>"
    mask = "<" + ", ".join([f"i32 {0x7FFFFFFF}"] * width) + ">"
    return [
        *loop(
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
        *loop(
            "scan",
            "%columns",
            *word("scan"),
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
            *mark("scan.low", "%scan.word64", "%scan.index"),
            "%scan.group = lshr i64 %scan.word64, 6",
            f"%scan.group.index = add i64 %scan.group, {FIRST_GROUP}",
            *mark("scan.high", "%scan.group.index", "%scan.word64"),
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
        *mark("zeros.low", "0", "0"),
        *mark("zeros.high", str(FIRST_GROUP), "0"),
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
            *loop(
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
                *sorted_row(),
                "br label %row.end",
                "row.end:",
            ),
            "%odd = load i1, ptr %odd.at",
            "%result = zext i1 %odd to i64",
            "ret i64 %result",
            "}",
        ]
    )
